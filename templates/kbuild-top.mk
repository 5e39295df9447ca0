# Run in a prepared build folder instead of the kernel's Makefile, which it includes: records the variables that kbuild
# exports to the Makefiles of its folders.
#   lpbuild-source  the kernel source     lpbuild-out  an empty folder for the answers
lpbuild-top:
include $(lpbuild-source)/Makefile
lpbuild-top:
	@env -0 > $(lpbuild-out)/env
