from tests.benchmarks.accounting import hlo

PROGRAM = """\
HloModule step

%slice_and_scale (param.0: f32[16,8,4], param.1: s32[]) -> f32[8,4] {
  %param.0 = f32[16,8,4]{2,1,0} parameter(0)
  %param.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8,4]{2,1,0} dynamic-slice(%param.0, %param.1, %zero, %zero), sizes={1,8,4}
  ROOT %view = f32[8,4]{1,0} bitcast(%slice)
}

%put (param.0: f32[16,8,4], param.1: f32[8,4], param.2: s32[]) -> f32[16,8,4] {
  %param.0 = f32[16,8,4]{2,1,0} parameter(0)
  %param.1 = f32[8,4]{1,0} parameter(1)
  %param.2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %view = f32[1,8,4]{2,1,0} bitcast(%param.1)
  ROOT %update = f32[16,8,4]{2,1,0} dynamic-update-slice(%param.0, %view, %param.2, %zero, %zero)
}

%body (state: (s32[], f32[16,8,4])) -> (s32[], f32[16,8,4]) {
  %state = (s32[], f32[16,8,4]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %all = f32[16,8,4]{2,1,0} get-tuple-element(%state), index=1
  %one = f32[8,4]{1,0} fusion(%all, %i), kind=kLoop, calls=%slice_and_scale
  %new = f32[16,8,4]{2,1,0} fusion(%all, %one, %i), kind=kLoop, calls=%put
  ROOT %result = (s32[], f32[16,8,4]{2,1,0}) tuple(%i, %new)
}

ENTRY %main (x: f32[16,8,4], y: bf16[4,2]) -> bf16[128,2] {
  %x = f32[16,8,4]{2,1,0} parameter(0)
  %y = bf16[4,2]{1,0} parameter(1)
  %start = s32[] constant(0)
  %first = (s32[], f32[16,8,4]{2,1,0}) tuple(%start, %x)
  %loop = (s32[], f32[16,8,4]{2,1,0}) while(%first), condition=%c, body=%body, TRIPS
  %rows = bf16[128,4]{1,0} custom-call(%loop), custom_call_target="cast"
  ROOT %dot = bf16[128,2]{1,0} dot(%rows, %y), metadata={op_name="jit(step)/head/dot_general"}
}
"""
NOTED = 'backend_config={"known_trip_count":{"n":"16"}}'


def test_loops_are_multiplied_out_and_slices_move_what_they_take():
    found = {x.name: x for x in hlo.operations(PROGRAM.replace("TRIPS", NOTED))}
    assert [*found] == ["one", "new", "rows", "dot"]
    one, new, dot = found["one"], found["new"], found["dot"]
    # A slice of a stack is read, not the stack; and written in place.
    size = 8 * 4 * 4
    assert (one.times, one.read, one.written, one.in_loop) == (16, size + 4, size, True)
    assert (new.times, new.read, new.written) == (16, size + 4, size)
    assert (dot.times, dot.read, dot.written, dot.in_loop) == (1, 2 * (128 * 4 + 8), 512, False)
    assert dot.operand_shapes == ((128, 4), (4, 2)) and dot.operand_sizes == (512, 8)
    assert dot.source == "jit(step)/head/dot_general"


def test_loops_whose_number_is_not_noted_take_the_one_that_is_given():
    found = hlo.operations(PROGRAM.replace("TRIPS", "a=b"), trips=5)
    assert [x.times for x in found] == [5, 5, 1, 1]


def test_sizes_of_types():
    assert hlo.size("(f32[2,3]{1,0}, bf16[4]{0}, pred[])") == 24 + 8 + 1
    assert hlo.elements("(f32[2,3]{1,0}, s32[])") == 7
    assert hlo.shapes("(f32[2,3]{1,0}, s32[])") == [(2, 3), ()]
