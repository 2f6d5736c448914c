-- For .ci/lint_lua.py, which checks every script as Redis gets it: includes put in, lines about layouts expanded.
std = { read_globals = {
  "KEYS", "ARGV", "redis", "struct", "cjson", "cmsgpack", "bit",
  "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "select", "setmetatable", "tonumber", "tostring", "type", "unpack",
  math = { fields = { "ceil", "floor", "max", "min" } },
  string = { fields = { "char", "format", "rep" } },
  table = { fields = { "concat", "remove", "sort" } },
} }
max_line_length = 120
max_cyclomatic_complexity = false
