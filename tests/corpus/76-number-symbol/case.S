/* SPDX-License-Identifier: GPL-2.0-only */
	.globl	limit
#ifdef NEW
	.set	limit, 0x2000
#else
	.set	limit, 0x1000
#endif
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	push	%rbx
	mov	limit(,%rdi,8), %rax
	call	take
	pop	%rbx
	ret
	.size	check, . - check
