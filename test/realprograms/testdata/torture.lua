-- Everything in Lua that unwinds the C stack, which a WebAssembly build has to
-- do without longjmp; then the collector, strings and numbers.
print(pcall(error, "boom"))
print(pcall(function() local x = nil; return x.y end))
for i = 1, 100000 do pcall(error, i) end
print(pcall(function()
  local ok, e = pcall(error, { code = 7 })
  assert(not ok and e.code == 7)
  error("outer " .. e.code, 0)
end))

local co = coroutine.wrap(function(a) for i = 1, 3 do a = coroutine.yield(a + i) end return "done" end)
print(co(1), co(10), co(20), co(30))
print(pcall(co))
local c = coroutine.create(function()
  local ok, v = pcall(function() error("after " .. coroutine.yield(1), 0) end)
  coroutine.yield(v)
  return "end"
end)
print(coroutine.resume(c)); print(coroutine.resume(c, "resume")); print(coroutine.resume(c)); print(coroutine.resume(c))

local function deep() return 1 + deep() end
local ok, e = pcall(deep)
print(ok, (tostring(e):match("stack overflow")))
print((select(2, load("return " .. string.rep("(", 300)))):match("overflow") or "parsed")
print(xpcall(function() error("tb", 0) end, function(m) return "handled " .. m end))
print(pcall(function()
  local x <close> = setmetatable({}, { __close = function(_, e) print("closing", e) end })
  error("E", 0)
end))
print(pcall(table.sort, { 1, 2, 3, 4, 5 }, function() error("cmp", 0) end))
print(pcall(string.gsub, "a", "a", function() error("cb", 0) end))
print(select("#", pcall(string.rep, "x", 1 << 40)))

local live = setmetatable({}, { __mode = "k" })
for i = 1, 200000 do live[{ i }] = tostring(i) end
collectgarbage()
print(next(live))
local n = 0
for w in string.rep("whale pod ", 1000):gmatch("%a+") do n = n + #w end
print(n, 7 // 2, 7 / 2, -7 % 3, 1 << 62, math.maxinteger + 1 == math.mininteger, string.format("%.17g", 0.1))
print(io.open("/nonexistent"))
print(pcall(io.popen, "ls"))
print((os.execute()))
