-- Allocation and garbage collection: binary trees.
local function make(depth)
	if depth == 0 then return {} end
	return { make(depth - 1), make(depth - 1) }
end
local function check(t) if t[1] then return 1 + check(t[1]) + check(t[2]) end return 1 end
local n = 0
for depth = 4, 12, 2 do
	for _ = 1, 1 << (13 - depth) do n = n + check(make(depth)) end
end
print(n)
