/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	check
	.popsection
	push	%rbx
1:	call	take
	.pushsection .call_sites, "a"
	.long	1b - .
	.popsection
#ifdef NEW
	add	$3, %eax
#else
	add	$1, %eax
#endif
	pop	%rbx
	ret
	.size	check, . - check
