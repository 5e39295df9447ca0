/* SPDX-License-Identifier: GPL-2.0-only */
	.section .rodata.cst16, "aM", @progbits, 16
	.p2align 4
shuffle:
#ifdef NEW
	.quad	0x0001020304050607, 0x08090a0b0c0d0e0e
#else
	.quad	0x0001020304050607, 0x08090a0b0c0d0e0f
#endif
halves:
	.quad	0x1111111111111111, 0x2222222222222222
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	push	%rbx
	mov	shuffle+8(%rip), %rdi
	call	take
	pop	%rbx
	ret
	.size	check, . - check
	.globl	same
	.type	same, @function
	.p2align 4
same:
	push	%rbx
	mov	halves+8(%rip), %rdi
	call	take
	pop	%rbx
	ret
	.size	same, . - same
	.globl	other
	.type	other, @function
	.p2align 4
other:
	push	%rbx
	mov	halves+8(%rip), %rdi
	mov	shuffle(%rip), %rsi
#ifdef NEW
	inc	%rdi
#endif
	call	take
	pop	%rbx
	ret
	.size	other, . - other
