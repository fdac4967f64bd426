"use strict";
// Every cell of a board answers, to a pointer and to the keyboard. Without this script the places
// of a board are links to panels; they go when it runs.
(() => {
  const numbers = JSON.parse(document.getElementById("numbers").textContent);
  const panel = document.getElementById("inspector");
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const arrows = { ArrowLeft: "←", ArrowUp: "↑", ArrowDown: "↓", ArrowRight: "→" };
  const reach = 12; // pixels from a pointer to the cell that it may mean
  let open = null; // the board whose cell is shown

  const made = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const close = () => {
    panel.hidden = true;
    if (open) open.cursor.setAttribute("visibility", "hidden");
    open = null;
  };

  const button = (text, label, act) => {
    const element = made("button", text, { type: "button", "aria-label": label });
    element.addEventListener("click", act);
    return element;
  };

  const picture = (arm, row, number) => {
    const tile = arm.tiles[row];
    if (tile < 0) return made("i", "no image kept", { class: "tile missing" });
    const element = made("i", "", {
      class: `tile sheet-${number}`, role: "img", "aria-label": "its image",
    });
    element.style.setProperty("--x", tile % arm.columns);
    element.style.setProperty("--y", Math.floor(tile / arm.columns));
    return element;
  };

  // Cells are row-major over the measures: the last one runs fastest.
  const along = (cell) => {
    const places = [];
    for (const { cells } of [...numbers.measures].reverse()) {
      places.unshift(cell % cells);
      cell = Math.floor(cell / cells);
    }
    return places;
  };

  const show = (board, place) => {
    if (open && open !== board) open.cursor.setAttribute("visibility", "hidden");
    open = board;
    board.place = place;
    const row = board.elites.get(place);
    const arm = numbers.arms[board.arm];
    const cell = arm.cells[row];
    const where = along(cell);
    const list = made("dl");
    const figure = (name, value, more) => {
      const told = made("dd", `${value} `.replace(/-/g, "−"));
      if (more) told.append(made("small", more));
      list.append(made("dt", name), told);
    };
    figure("objective", arm.objectives[row]);
    numbers.measures.forEach(({ name, cells }, i) => {
      figure(name, arm.measures[row][i], `${arm.word} ${where[i] + 1} of ${cells}`);
    });
    const words = made("div");
    words.append(made("b", `${arm.name}, cell ${arm.own[row]}`), list);
    const move = made("div", "", { class: "move" });
    for (const [name, sign] of Object.entries(arrows)) {
      move.append(button(sign, `next elite, ${name.slice(5).toLowerCase()}`, () => go(board, steps[name])));
    }
    const pressed = panel.contains(document.activeElement)
      ? document.activeElement.getAttribute("aria-label") : null;
    panel.replaceChildren(button("×", "close", () => { board.group.focus(); close(); }),
      picture(arm, row, board.arm), words, move);
    panel.firstChild.className = "close";
    panel.hidden = false;
    if (pressed) panel.querySelector(`[aria-label="${pressed}"]`)?.focus();
    board.mark(place);
    uncover(board.cursor);
  };

  const uncover = (cursor) => {
    const cell = cursor.getBoundingClientRect();
    const over = panel.getBoundingClientRect();
    const hidden = cell.right > over.left && cell.left < over.right && cell.bottom > over.top;
    if (hidden) window.scrollBy(0, cell.bottom - over.top + reach);
  };

  const go = (board, [right, up]) => {
    let column = board.place % board.columns + right;
    let line = Math.floor(board.place / board.columns) + up;
    while (column >= 0 && column < board.columns && line >= 0 && line < board.lines) {
      const place = line * board.columns + column;
      if (board.elites.has(place)) return show(board, place);
      column += right;
      line += up;
    }
  };

  const nearest = (board, event) => {
    const box = board.hit.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * board.columns;
    const y = (box.bottom - event.clientY) / box.height * board.lines;
    const wide = box.width / board.columns;
    const high = box.height / board.lines;
    let best = null;
    let least = reach;
    for (const place of board.elites.keys()) {
      const dx = Math.max(0, Math.abs(place % board.columns + 0.5 - x) - 0.5) * wide;
      const dy = Math.max(0, Math.abs(Math.floor(place / board.columns) + 0.5 - y) - 0.5) * high;
      const far = Math.hypot(dx, dy);
      if (far < least) [best, least] = [place, far];
    }
    return best;
  };

  const boards = [...document.querySelectorAll(".board")].map((group) => {
    const data = group.dataset;
    const list = (text) => (text ? text.split(" ").map(Number) : []);
    const rows = list(data.elites);
    const hit = group.querySelector(".hit");
    const cursor = hit.cloneNode();
    const board = {
      group, hit, cursor, place: null, arm: Number(data.arm),
      columns: Number(data.columns), lines: Number(data.lines),
      elites: new Map(list(data.places).map((place, i) => [place, rows[i]])),
      mark(place) {
        const width = hit.width.baseVal.value / this.columns;
        const height = hit.height.baseVal.value / this.lines;
        const line = this.lines - 1 - Math.floor(place / this.columns);
        cursor.setAttribute("x", hit.x.baseVal.value + place % this.columns * width);
        cursor.setAttribute("y", hit.y.baseVal.value + line * height);
        cursor.setAttribute("width", width);
        cursor.setAttribute("height", height);
        cursor.setAttribute("visibility", "visible");
      },
    };
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("visibility", "hidden");
    group.querySelectorAll("a").forEach((link) => link.remove());
    group.append(cursor);
    if (!board.elites.size) return board;
    group.setAttribute("tabindex", "0");
    group.setAttribute("role", "application");
    group.setAttribute("aria-label", `${group.getAttribute("aria-label")}. Enter shows one, arrow keys move, Escape closes.`);
    group.addEventListener("click", (event) => {
      const place = nearest(board, event);
      if (place === null) close();
      else show(board, place);
    });
    group.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (!step && event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      if (open === board && step) go(board, step);
      else show(board, board.place ?? board.elites.keys().next().value);
    });
    return board;
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !open) return;
    open.group.focus();
    close();
  });

  // An address that names a panel, as links without scripts make it, opens the same cell.
  const named = /^#e(\d+)-(\d+)$/.exec(location.hash);
  document.getElementById("panels").remove();
  document.documentElement.classList.add("scripts");
  if (!named) return;
  const row = numbers.arms[Number(named[1])]?.cells.indexOf(Number(named[2])) ?? -1;
  const board = boards.find((each) => each.arm === Number(named[1])
    && [...each.elites.values()].includes(row));
  if (board) show(board, [...board.elites].find(([, elite]) => elite === row)[0]);
})();
