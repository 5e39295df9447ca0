/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	call	__fentry__
#ifdef NEW
	nop
#endif
	.rept	40
	mov	$0x1234, %edi
	call	take
	.endr
	.set	n, 0
	.rept	40
	jz	neighbour + n
	.set	n, n + 1
	.endr
	.size	check, . - check
	.type	neighbour, @function
neighbour:
	.rept	60
	nop
	.endr
	jmp	take
	.size	neighbour, . - neighbour
