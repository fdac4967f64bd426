"""Costs as they stand in compiled programs: loops by their turns, parts by their names."""

import compiled_texts as texts
import pytest

from qdgs_jax.targets.chips import CHIPS
from qdgs_jax.targets.costs import gpu_costs, tpu_costs
from qdgs_jax.targets.parts import kind_of, part_of
from qdgs_jax.targets.program_text import Program, size_of


def loops(text):
    program = Program.parse(text)
    return {
        operation.name: (program, operations, operation)
        for operations in program.computations.values()
        for operation in operations.values()
        if operation.kind == "while"
    }


def test_a_loop_is_counted_as_often_as_it_turns():
    program, inside, loop = loops(texts.TPU)["loop"]
    assert program.turns(inside, loop) == 7  # from 0 to 14 by 2


def test_the_limit_of_an_inner_loop_may_come_from_outside():
    program, inside, loop = loops(texts.TPU)["inner_loop"]
    assert program.turns(inside, loop) is None
    assert program.turns(inside, loop, lambda index: {2: 3}.get(index)) == 3
    assert tpu_costs(texts.TPU).cycles == texts.TPU_CYCLES


@pytest.mark.parametrize(
    ("direction", "limit", "turns"), [("LT", 15, 8), ("LE", 14, 8), ("NE", 14, 7), ("EQ", 14, None)]
)
def test_directions_of_the_test(direction, limit, turns):
    text = texts.TPU.replace("constant(14)", f"constant({limit})")
    text = text.replace(
        "compare(%d.0, %limit), direction=LT", f"compare(%d.0, %limit), direction={direction}"
    )
    program, inside, loop = loops(text)["loop"]
    assert program.turns(inside, loop) == turns


def test_what_cannot_be_known_is_told():
    costs = tpu_costs(texts.TPU)
    # The inner loop's limit is known where it is reached, but not where it stands.
    assert costs.unknown_loops == 1
    assert costs.without_estimate == {"sort": 1, "scatter": 1}
    assert costs.conditionals == 1
    assert costs.moved is None


def test_shares_by_part_and_by_operation():
    costs = tpu_costs(texts.TPU)
    assert sum(costs.parts.values()) == pytest.approx(1)
    assert costs.parts["generator 64 x 64, backward"] == pytest.approx(700 / texts.TPU_CYCLES)
    assert costs.parts["CLIP attention"] == pytest.approx(210 / texts.TPU_CYCLES)
    assert costs.parts["archive"] == pytest.approx(2 / texts.TPU_CYCLES)
    assert costs.kinds["conv_general_dilated"] == pytest.approx(700 / texts.TPU_CYCLES)
    assert costs.dearest[0].times == 7
    assert costs.dearest[0].result == "f32[4,4]"


def test_kernels_of_a_gpu_move_bytes():
    costs = gpu_costs(texts.GPU)
    convert, product, counter = 1024 + 512, 512 + 1024, 4 + 4  # scratch space is not moved
    test = 1 + 4 + 1024
    exchange = (1024 + 1024) + (1024 + 1024)
    assert costs.moved == 5 * (convert + product + counter + test) + exchange
    assert costs.cycles is None
    assert costs.custom_calls == {"__cublas$gemm": 5}
    assert costs.collectives == {"all-reduce": 1}
    assert costs.unknown_loops == 0
    chip = CHIPS["cuda"]["h100"]
    assert costs.seconds(chip) == costs.moved / chip.bandwidth


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("f32[4,2]{1,0:T(8,128)S(1)}", 32),
        ("(bf16[3]{0}, pred[5]{0}, s32[])", 15),
        ("u16[0]", 0),
        ("f8e4m3fn[8]{0}", 8),
    ],
)
def test_bytes_of_types(kind, size):
    assert size_of(kind) == size


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", "(no name: the compiler's own)"),
        ("jit(_steps)/while/body/vmap(transpose(jvp(b256)))/mul", "generator 256 x 256, backward"),
        ("jit(_steps)/generator/mapping/dot_general", "mapping"),
        ("jit(_steps)/while/body/jit(clip)/max", "the rest of the step"),
        ("jit(_steps)/jvp(clip)/mlp/dot_general", "CLIP mlp"),
        ("jit(_steps)/emitter/jit(sort)/sort", "emitter"),
    ],
)
def test_parts_by_their_names(path, part):
    assert part_of(path) == part


def test_kinds_by_their_last_name():
    assert kind_of("jit(f)/a/dot_general") == "dot_general"
    assert kind_of("") == "(no name: the compiler's own)"


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        Program.parse("a text")


def test_of_a_table_only_the_rows_that_are_taken_are_moved():
    text = """HloModule taking

%fused (table: f32[1000,8], rows: s32[4,1]) -> f32[4,8] {
  %table = f32[1000,8]{1,0} parameter(0)
  %rows = s32[4,1]{1,0} parameter(1)
  %taken = f32[4,8]{1,0} gather(%table, %rows), offset_dims={1}
  ROOT %twice = f32[4,8]{1,0} add(%taken, %taken)
}

ENTRY %main (archive: f32[1000,8], which: s32[4,1]) -> f32[4,8] {
  %archive = f32[1000,8]{1,0} parameter(0)
  %which = s32[4,1]{1,0} parameter(1)
  ROOT %fusion = f32[4,8]{1,0} fusion(%archive, %which), kind=kLoop, calls=%fused
}
"""
    taken, rows, written = 4 * 8 * 4, 4 * 4, 4 * 8 * 4
    assert gpu_costs(text).moved == taken + rows + written
