-- Arrays: sorting with a comparison in Lua, inserting, removing.
local seed = 42
local function random() seed = (seed * 1103515245 + 12345) % 2147483648; return seed end
local sum = 0
for _ = 1, 4 do
	local t = {}
	for i = 1, 10000 do t[i] = random() end
	table.sort(t, function(a, b) return a > b end)
	sum = sum + t[1] - t[#t]
	for _ = 1, 300 do table.insert(t, 50, table.remove(t, 1)) end
	sum = sum + t[50]
end
print(sum)
