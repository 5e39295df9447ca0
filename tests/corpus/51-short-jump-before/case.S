/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.type	neighbour, @function
neighbour:
	call	__fentry__
	mov	$3, %edi
	jmp	take
	.size	neighbour, . - neighbour
	.globl	check
	.type	check, @function
check:
	call	__fentry__
	test	%edi, %edi
	jz	neighbour
	cmp	$3, %edi
	js	neighbour
	.rept	30
	mov	$0x1234, %edi
	call	take
	.endr
#ifdef NEW
	call	take
#endif
	jmp	neighbour
	.size	check, . - check
