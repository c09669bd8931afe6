"""NAME_weights.S: the weights as an object to link, taken from the binary file by the assembler."""

from __future__ import annotations


def weights_assembly(name: str, align: int) -> str:
    """Assembly (to be preprocessed) that defines NAME_weights for ELF, Mach-O and COFF.

    The assembler looks for NAME.weights in its working folder and in every -I folder.
    """
    return f"""\
/* Defines the array {name}_weights that {name}.h declares, with the contents of {name}.weights:
 *     cc -c {name}_weights.S            in this folder, or from elsewhere
 *     cc -I DIR -c DIR/{name}_weights.S
 */
#ifndef WEIGHTS_FILE
#define WEIGHTS_FILE "{name}.weights"
#endif

#if defined(__APPLE__)
#define WEIGHTS _{name}_weights
        .section __TEXT,__const
#elif defined(_WIN32)
#define WEIGHTS {name}_weights
        .section .rdata,"dr"
#else
#define WEIGHTS {name}_weights
        .section .rodata,"a",%progbits
        .type WEIGHTS,%object
#endif
        .globl WEIGHTS
        .balign {align}
WEIGHTS:
        .incbin WEIGHTS_FILE
        .byte 0
#if defined(__ELF__)
        .size WEIGHTS,.-WEIGHTS
        .section .note.GNU-stack,"",%progbits
#endif
"""
