-- Backtracking over small arrays.
local N, solutions = 8, 0
local rows, up, down = {}, {}, {}
local function place(col)
	if col > N then solutions = solutions + 1 return end
	for row = 1, N do
		if not rows[row] and not up[row + col] and not down[row - col + N] then
			rows[row], up[row + col], down[row - col + N] = true, true, true
			place(col + 1)
			rows[row], up[row + col], down[row - col + N] = false, false, false
		end
	end
end
for _ = 1, 6 do place(1) end
print(solutions)
