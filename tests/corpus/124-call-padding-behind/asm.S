/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
/* Four bytes, and behind it nothing but the padding of the next function. */
check:
#ifdef NEW
	nop
	nop
	nop
#else
	mov	%edi, %eax
	nop
#endif
	ret
	.size	check, . - check
	.type	__pfx_next, @function
__pfx_next:
	.fill	16, 1, 0x90
	.size	__pfx_next, . - __pfx_next
	.globl	next
	.type	next, @function
next:
	xor	%eax, %eax
	ret
	.size	next, . - next
