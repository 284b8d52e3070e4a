-- Function calls and closures.
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
local function counter()
	local n = 0
	return function(d) n = n + d; return n end
end
local c, last = counter(), 0
for i = 1, 300000 do last = c(i % 7) end
print(fib(25), last)
