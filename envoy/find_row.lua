-- Reads the model of a request that nobody has chosen a pool for, and names its row of pools by the
-- largest of them: a route keeps it there. It runs while the service does not answer. Every loop is
-- bounded.
local MOST_BYTES = 4194304
local MOST_STEPS = 200000
local MOST_KEY = 31 -- "model", each letter escaped
-- The models of each row: whole names, and what others begin and end with.
local ROWS = {
{% for row in rows %}
  {name = {{ row.largest.name | tojson }}, names = {
{%- for name in row.names %}[{{ lua(name) }}]=true,{% endfor %}}, patterns = {
{%- for first, last in row.patterns %}{ {{- lua(first) }}, {{ lua(last) -}} },{% endfor %}}},
{% endfor %}
}

local function row_of(model)
  for _, row in ipairs(ROWS) do
    if row.names[model] then return row.name end
    for _, ends in ipairs(row.patterns) do
      local first, last = ends[1], ends[2]
      local fits = #model >= #first + #last and model:sub(1, #first) == first
      if fits and model:sub(#model - #last + 1) == last then return row.name end
    end
  end
  return nil
end

-- Returns the place of the quote that ends the string which begins at `first`, and the steps left.
local function string_end(text, first, steps)
  local quote = first
  while steps > 0 do
    steps = steps - 1
    quote = text:find('"', quote + 1, true)
    if not quote then return nil, steps end
    local slash = quote - 1
    while text:byte(slash) == 92 do slash = slash - 1 end
    -- An odd number of backslashes escapes the quote.
    if (quote - slash) % 2 == 1 then return quote, steps end
  end
  return nil, steps
end

-- Returns a JSON string's text with those escapes resolved that a name may have; others stay.
local function unescaped(text)
  if not text:find("\\", 1, true) then return text end
  local plain = text:gsub("\\u00([0-7]%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return (plain:gsub("\\/", "/"))
end

-- Returns the name that the value at `first` gives, "" if it is no string, nil if it is unreadable.
local function name_at(text, first, steps)
  if text:byte(first) ~= 34 then return "" end
  local stop = string_end(text, first, steps)
  local name = stop and unescaped(text:sub(first + 1, stop - 1)) or ""
  return not name:find("\\", 1, true) and name or nil
end

-- Returns the model that a JSON object names, "" if it names none, nil if that is too much to read.
-- As parsers do, it takes the last one of several.
local function model_of(text)
  local depth, at, steps, model = 0, 0, MOST_STEPS, ""
  while steps > 0 do
    steps = steps - 1
    at = text:find('["{}%[%]]', at + 1)
    if not at then return model end
    local byte = text:byte(at)
    if byte == 34 then
      local last
      last, steps = string_end(text, at, steps)
      if not last then break end
      local value = depth == 1 and last - at <= MOST_KEY
        and unescaped(text:sub(at + 1, last - 1)) == "model" and text:match("^%s*:%s*()", last + 1)
      if value then model = name_at(text, value, steps) end
      at = last
    elseif byte == 123 or byte == 91 then
      depth = depth + 1
    else
      depth = depth - 1
    end
  end
  if model == "" and steps <= 0 then return nil end
  return model
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local reason = headers:get("x-llm-reason")
  local kind = headers:get("content-type") or "json"
  if headers:get("x-llm-pool") or reason == "unlisted" or not kind:lower():find("json", 1, true) then
    return
  end
  local encoding = (headers:get("content-encoding") or ""):lower():gsub("%s", "")
  -- Waits, after which the headers above are not valid any more.
  local body = handle:body()
  if not body then return end
  local plain = (encoding == "" or encoding == "identity") and body:length() <= MOST_BYTES
  local model = plain and model_of(body:getBytes(0, body:length())) or nil
  if model == "" then return end
  if model then
    local row = row_of(model)
    handle:headers():replace(row and "x-llm-row" or "x-llm-reason", row or "unlisted")
    handle:clearRouteCache()
  elseif reason ~= "unreadable" then
    -- Rather than the 404 of a pool that does not have it.
    local text = "The router does not answer, and without it the model of this request is not known."
    handle:respond({[":status"] = "503"}, text)
  end
end
