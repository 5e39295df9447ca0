/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
0:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	0b
	.popsection
1:	add	$3, %rdi
#ifdef NEW
	add	$4, %rdi
#endif
	cmp	$100, %rdi
	jb	1b
	jmp	take
	.size	check, . - check
