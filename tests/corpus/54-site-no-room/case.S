/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
check:
#ifdef NEW
	inc	%edi
#endif
	mov	%edi, %eax
	ret
	.size	check, . - check
	.globl	next
	.type	next, @function
next:
	jmp	take
	.size	next, . - next
