# C locals that have an address live on a stack in linear memory. Its pointer is
# a global, which C cannot name.

	.globaltype	__stack_pointer, i32

	.globl	lua_wasi_get_sp
	.type	lua_wasi_get_sp,@function
lua_wasi_get_sp:
	.functype	lua_wasi_get_sp () -> (i32)
	global.get	__stack_pointer
	end_function

	.globl	lua_wasi_set_sp
	.type	lua_wasi_set_sp,@function
lua_wasi_set_sp:
	.functype	lua_wasi_set_sp (i32) -> ()
	local.get	0
	global.set	__stack_pointer
	end_function
