/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4, 0xcc
check:
#ifdef NEW
	inc	%edi
#endif
	mov	%edi, %eax
	ret
	.size	check, . - check
	.p2align 4, 0xcc
	.globl	next
	.type	next, @function
next:
	jmp	take
	.size	next, . - next
