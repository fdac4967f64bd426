"""Small compiled programs as compilers write them, made up for the tests."""


def _costed(cycles, path=""):
    name = f'metadata={{op_name="{path}" stack_frame_id=1}}, ' if path else ""
    return f'{name}backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'


# A loop of 7 turns whose body has a fusion of 100 cycles and a loop of 3 turns of 10 cycles, whose
# limit it is handed from outside; a conditional of 5 or 50 cycles; a loop of unknown length; a sort
# and a scatter without an estimate.
TPU = f"""HloModule jit_step, is_scheduled=true

FileNames
1 "made_up.py"

%fused (p: f32[4,4]) -> f32[4,4] {{
  %p = f32[4,4]{{1,0:T(8,128)}} parameter(0)
  ROOT %inner = f32[4,4]{{1,0:T(8,128)}} sine(%p), {_costed(1_000_000)}
}}

%short_body (a: (s32[], f32[4,4], s32[])) -> (s32[], f32[4,4], s32[]) {{
  %one = s32[]{{:T(128)}} constant(1)
  %a = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)S(1)}}, s32[]{{:T(128)}}) parameter(0)
  %a.0 = s32[]{{:T(128)}} get-tuple-element(%a), index=0
  %a.1 = f32[4,4]{{1,0:T(8,128)S(1)}} get-tuple-element(%a), index=1
  %a.2 = s32[]{{:T(128)}} get-tuple-element(%a), index=2
  %grown = s32[]{{:T(128)}} add(%a.0, %one)
  %short = f32[4,4]{{1,0:T(8,128)S(1)}} fusion(%a.1), kind=kLoop, calls=%fused, \
{_costed(10, "jit(step)/while/body/while/body/jvp(clip)/attention/dot_general")}
  ROOT %next = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)S(1)}}, s32[]{{:T(128)}}) \
tuple(%grown, %short, /*index=2*/%a.2)
}}

%short_condition (c: (s32[], f32[4,4], s32[])) -> pred[] {{
  %c = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)S(1)}}, s32[]{{:T(128)}}) parameter(0)
  %c.0 = s32[]{{:T(128)}} get-tuple-element(%c), index=0
  %c.2 = s32[]{{:T(128)}} get-tuple-element(%c), index=2
  ROOT %lt = pred[]{{:T(512)}} compare(%c.0, %c.2), direction=LT
}}

%body (b: (s32[], f32[4,4], s32[])) -> (s32[], f32[4,4], s32[]) {{
  %b = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)}}, s32[]{{:T(128)}}) parameter(0)
  %b.0 = s32[]{{:T(128)}} get-tuple-element(%b), index=0
  %b.1 = f32[4,4]{{1,0:T(8,128)}} get-tuple-element(%b), index=1
  %b.2 = s32[]{{:T(128)}} get-tuple-element(%b), index=2
  %two = s32[]{{:T(128)}} constant(2)
  %zero = s32[]{{:T(128)}} constant(0)
  %zero.copy = s32[]{{:T(128)}} copy(%zero)
  %b.grown = s32[]{{:T(128)}} add(%two, %b.0)
  %long = f32[4,4]{{1,0:T(8,128)}} fusion(%b.1), kind=kOutput, calls=%fused, \
{_costed(100, "jit(step)/while/body/transpose(jvp(b64))/conv_general_dilated")}
  %start = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)S(1)}}, s32[]{{:T(128)}}) \
tuple(%zero.copy, %long, %b.2)
  %inner_loop = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)S(1)}}, s32[]{{:T(128)}}) while(%start), \
condition=%short_condition, body=%short_body
  %made = f32[4,4]{{1,0:T(8,128)}} get-tuple-element(%inner_loop), index=1
  ROOT %b.next = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)}}, s32[]{{:T(128)}}) \
tuple(%b.grown, %made, %b.2)
}}

%condition (d: (s32[], f32[4,4], s32[])) -> pred[] {{
  %limit = s32[]{{:T(128)}} constant(14)
  %d = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)}}, s32[]{{:T(128)}}) parameter(0)
  %d.0 = s32[]{{:T(128)}} get-tuple-element(%d), index=0
  ROOT %d.lt = pred[]{{:T(512)}} compare(%d.0, %limit), direction=LT
}}

%cheap (e: f32[4,4]) -> f32[4,4] {{
  %e = f32[4,4]{{1,0}} parameter(0)
  ROOT %e.copy = f32[4,4]{{1,0}} copy(%e), {_costed(5)}
}}

%dear (g: f32[4,4]) -> f32[4,4] {{
  %g = f32[4,4]{{1,0}} parameter(0)
  ROOT %g.copy = f32[4,4]{{1,0}} copy(%g), {_costed(50)}
}}

%until (h: f32[4,4]) -> pred[] {{
  %h = f32[4,4]{{1,0}} parameter(0)
  %most = f32[]{{:T(128)}} constant(3)
  %largest = f32[]{{:T(128)}} fusion(%h), kind=kLoop, calls=%fused, {_costed(1)}
  ROOT %h.lt = pred[]{{:T(512)}} compare(%largest, %most), direction=LT
}}

%grow (i: f32[4,4]) -> f32[4,4] {{
  %i = f32[4,4]{{1,0}} parameter(0)
  ROOT %i.more = f32[4,4]{{1,0}} fusion(%i), kind=kLoop, calls=%fused, \
{_costed(2, "jit(step)/archive/jit(clip)/max")}
}}

ENTRY %main (x: f32[4,4], t: f32[1000,4], y: s32[2]) -> (f32[4,4], f32[1000,4]) {{
  %x = f32[4,4]{{1,0:T(8,128)}} parameter(0), metadata={{op_name="x"}}
  %t = f32[1000,4]{{1,0:T(8,128)}} parameter(1), metadata={{op_name="t"}}
  %y = s32[2]{{0:T(128)}} parameter(2), metadata={{op_name="y"}}
  %first = s32[]{{:T(128)}} constant(0)
  %three = s32[]{{:T(128)}} constant(3)
  %begun = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)}}, s32[]{{:T(128)}}) tuple(%first, %x, %three)
  %loop = (s32[]{{:T(128)}}, f32[4,4]{{1,0:T(8,128)}}, s32[]{{:T(128)}}) while(%begun), \
condition=%condition, body=%body, metadata={{op_name="jit(step)/while"}}
  %looped = f32[4,4]{{1,0:T(8,128)}} get-tuple-element(%loop), index=1
  %chosen = f32[4,4]{{1,0}} conditional(%first, %looped, %looped), \
branch_computations={{%cheap, %dear}}
  %grown = f32[4,4]{{1,0}} while(%chosen), condition=%until, body=%grow
  %sorted = (f32[4,4]{{1,0}}, s32[4,4]{{1,0}}) sort(%grown, %grown), \
dimensions={{1}}, to_apply=%dear
  %put = f32[1000,4]{{1,0:T(8,128)}} fusion(%t, %y, %grown), kind=kCustom, calls=%fused, \
metadata={{op_name="jit(step)/archive/scatter"}}
  ROOT %out = (f32[4,4]{{1,0}}, f32[1000,4]{{1,0:T(8,128)}}) tuple(%grown, %put)
}}
"""
TPU_CYCLES = 7 * (100 + 3 * 10) + 50 + 1 + 2

GPU = """HloModule jit_step, is_scheduled=true

%fused (p: f32[256]) -> bf16[256] {
  %p = f32[256]{0} parameter(0)
  ROOT %c = bf16[256]{0} convert(%p)
}

%body (b: (s32[], f32[256])) -> (s32[], f32[256]) {
  %b = (s32[], f32[256]{0}) parameter(0)
  %b.0 = s32[] get-tuple-element(%b), index=0
  %b.1 = f32[256]{0} get-tuple-element(%b), index=1
  %low = bf16[256]{0} fusion(%b.1), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/while/body/mapping/convert_element_type"}
  %call = (f32[256]{0}, s8[4096]{0}) custom-call(%low), custom_call_target="__cublas$gemm"
  %got = f32[256]{0} get-tuple-element(%call), index=0
  %n = s32[] fusion(%b.0), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[256]{0}) tuple(%n, %got)
}

%condition (d: (s32[], f32[256])) -> pred[] {
  %d = (s32[], f32[256]{0}) parameter(0)
  ROOT %lt = pred[] fusion(%d), kind=kLoop, calls=%fused
}

ENTRY %main (x: f32[256]) -> f32[256] {
  %x = f32[256]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[256]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[256]{0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}
  %made = f32[256]{0} get-tuple-element(%loop), index=1
  %sum-start = f32[256]{0} all-reduce-start(%made), to_apply=%fused
  ROOT %sum-done = f32[256]{0} all-reduce-done(%sum-start)
}
"""
