/* SPDX-License-Identifier: GPL-2.0-only */
	.macro alternative old, new
661:	\old
662:
	.pushsection .altinstructions, "a"
	.long	661b - ., 663f - .
	.word	0x77
	.byte	662b - 661b, 664f - 663f
	.popsection
	.pushsection .altinstr_replacement, "ax"
663:	\new
664:
	.popsection
	.endm
	.macro fentry
99:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	99b
	.popsection
	.endm
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	fentry
	alternative ".byte 0x0f, 0x1f, 0x44, 0, 0", "call fast_clear"
#ifdef NEW
	inc	%edi
#endif
	jmp	take
	.size	check, . - check
	.globl	check2
	.type	check2, @function
	.p2align 4
check2:
	fentry
	inc	%edi
2:	inc	%edi
	inc	%edi
	call	take
	alternative ".byte 0x0f, 0x1f, 0x44, 0, 0", "jmp 2b"
#ifdef NEW
	inc	%edi
#endif
	jmp	take
	.size	check2, . - check2
