from caduceus_jax.train.planning.collectives import Collective, collectives

# A step of two layers: in each an all-gather that runs beside a product, so that it is written
# once where it begins and once with the product; a permute that is only begun here; and the
# gradients, once for all layers.
TEXT = """HloModule jit_step, is_scheduled=true

%start (p: f32[2,3]) -> f32[8,3] {
  %p = f32[2,3]{1,0} parameter(0)
  ROOT %ag = f32[8,3]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=7, metadata={op_name="jit(step)/jvp()/while/body/all_gather"}
}

%beside (p: f32[2,3]) -> f32[8,3] {
  %p = f32[2,3]{1,0} parameter(0)
  ROOT %ag.1 = f32[8,3]{1,0} all-gather(%p), channel_id=7, metadata={op_name="jit(step)/jvp()/while/body/all_gather"}
}

%body (carry: (s32[], f32[2,3])) -> (s32[], f32[2,3]) {
  %one = f32[8,3]{1,0} fusion(%x), kind=kCustom, calls=%start
  %two = f32[8,3]{1,0} fusion(%x), kind=kOutput, calls=%beside
  %halo = (bf16[2,3]{1,0}, bf16[2,3]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%y), channel_id=1, metadata={op_name="jit(step)/transpose(jvp())/while/body/ppermute"}
  %done = bf16[2,3]{1,0} collective-permute-done(%halo)
}

%condition (carry: (s32[], f32[2,3])) -> pred[] {
  %bound = s32[]{:T(128)} constant(2)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[2,3]) -> f32[4] {
  %begun = ((f32[16]{0}), f32[16]{0}) all-reduce-start(%z), to_apply=%add, metadata={op_name="jit(step)/reduce_sum"}
  %ended = f32[16]{0} all-reduce-done(%begun)
  %loop = (s32[], f32[2,3]{1,0}) while(%t), condition=%condition, body=%body
  %known = (s32[], f32[2,3]{1,0}) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %grads = (f32[4]{0}, /*index=1*/bf16[2]{0}) all-reduce(%a, %b), to_apply=%add, metadata={op_name="jit(step)/transpose(jvp())/checkpoint/rematted_computation/psum"}
}
"""  # noqa: E501


def test_collectives_are_counted_as_often_as_they_run():
    assert collectives(TEXT) == [
        Collective("all-gather", "f32[8,3]", "forward all_gather", 2, 2 * 96),
        Collective("collective-permute", "bf16[2,3]", "backward ppermute", 7, 7 * 12),
        Collective("all-reduce", "f32[16]", "forward reduce_sum", 1, 64),
        Collective("all-reduce", "(f32[4], bf16[2])", "recomputed psum", 1, 20),
    ]
