from caduceus_jax.kernels.ahead_of_time.machine_code import largest_loop, operation

DISASSEMBLY = """
.L_x_1:
        /*0000*/                   FFMA R1, R2, R3, R4 ;
        /*0010*/              @!P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0020*/                   MUFU.EX2 R5, R6 ;
        /*0030*/                   SHFL.BFLY PT, R7, R8, 0x1, 0x1f ;
        /*0040*/               @P1 BRA `(.L_x_3) ;
        /*0050*/                   FADD R1, R1, R5 ;
        /*0060*/               @P2 BRA `(.L_x_2) ;
.L_x_3:
        /*0070*/                   EXIT ;
"""


def test_the_largest_loop_is_that_of_the_farthest_backward_branch():
    kinds = [operation(instruction) for instruction in largest_loop(DISASSEMBLY)]
    assert kinds == ["MUFU", "SHFL", "BRA", "FADD", "BRA"]


def test_a_program_without_a_loop():
    assert largest_loop("        /*0000*/                   EXIT ;\n") == []


def test_operations_without_their_predicates_and_kinds():
    assert operation("@!UP0 UIADD3 UR4, UR4, 0x1, URZ") == "UIADD3"
    assert operation("MUFU.RCP R1, R2") == "MUFU"
