-- Floating point and table fields: five bodies that attract one another.
local bodies = {
	{ x = 0, y = 0, z = 0, vx = 0, vy = 0, vz = 0, mass = 39.47 },
	{ x = 4.84, y = -1.16, z = -0.10, vx = 0.60, vy = 2.81, vz = -0.02, mass = 0.037 },
	{ x = 8.34, y = 4.12, z = -0.40, vx = -1.01, vy = 1.82, vz = 0.008, mass = 0.011 },
	{ x = 12.89, y = -15.11, z = -0.22, vx = 1.08, vy = 0.86, vz = -0.01, mass = 0.0017 },
	{ x = 15.37, y = -25.91, z = 0.17, vx = 0.97, vy = 0.59, vz = -0.03, mass = 0.002 },
}
local function advance(dt)
	for i = 1, #bodies do
		local a = bodies[i]
		for j = i + 1, #bodies do
			local b = bodies[j]
			local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
			local d2 = dx * dx + dy * dy + dz * dz
			local mag = dt / (d2 * math.sqrt(d2))
			a.vx, a.vy, a.vz = a.vx - dx * b.mass * mag, a.vy - dy * b.mass * mag, a.vz - dz * b.mass * mag
			b.vx, b.vy, b.vz = b.vx + dx * a.mass * mag, b.vy + dy * a.mass * mag, b.vz + dz * a.mass * mag
		end
	end
	for i = 1, #bodies do
		local b = bodies[i]
		b.x, b.y, b.z = b.x + dt * b.vx, b.y + dt * b.vy, b.z + dt * b.vz
	end
end
for _ = 1, 20000 do advance(0.01) end
print(string.format("%.6f", bodies[1].x))
