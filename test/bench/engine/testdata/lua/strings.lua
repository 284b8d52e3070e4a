-- Strings: building, matching, replacing, hashing.
local words = {}
for i = 1, 4000 do words[i] = ("w%d_%s"):format(i, ("xyz"):rep(i % 5)) end
local text = table.concat(words, " ")
local n = 0
for _ = 1, 6 do
	for w in text:gmatch("%a+%d+") do n = n + #w end
	n = n + select(2, text:gsub("x(y)z", "%1"))
	n = n + #text:upper():reverse()
end
local seen = {}
for w in text:gmatch("%S+") do seen[w:sub(1, 3)] = (seen[w:sub(1, 3)] or 0) + 1 end
print(n, seen.w12)
