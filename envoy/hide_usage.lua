-- Removes the usage event from a stream whose client did not ask for it. The service did, and flags
-- the stream in dynamic metadata. What remains is what vLLM sends without the request for usage.
local MAX_EVENT = 262144

-- The usage event is the one without choices.
local function is_usage(event)
  local first = event:match('"choices"%s*:%s*%[%s*([^%s])')
  return first == "]" and event:find('"usage"%s*:%s*{')
end

-- vLLM names itself in the usage event or, without one, in the last event of a choice.
local function with_fingerprint(last, usage)
  local name = usage:match(',"system_fingerprint":"[^"]*"') or ""
  local json, blank = last:match("^(.*)}(%s*)$")
  return json and json .. name .. "}" .. blank or last
end

-- The service asks for usage only if this filter runs.
function envoy_on_request(handle)
  handle:streamInfo():dynamicMetadata():set("llm", "hides_usage", true)
end

function envoy_on_response(handle)
  local note = handle:streamInfo():dynamicMetadata():get("llm")
  local kind = (handle:headers():get("content-type") or ""):lower()
  local plain = not handle:headers():get("content-encoding")
  if not (plain and note and note["hide_usage"]) or kind:find("text/event-stream", 1, true) ~= 1 then
    return
  end
  handle:headers():remove("content-length")
  -- The unfinished event, of which `passed` bytes were sent already if it is too long to be held;
  -- and before it the last event of a choice, until the event after it is known.
  local held, passed, last = "", 0, ""
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local text, out, from = held, {}, 1
    if size > 0 then
      text = held .. chunk:getBytes(0, size)
    end
    local _, stop = text:find("\r?\n\r?\n")
    while stop do
      local event = text:sub(from + passed, stop)
      if passed > 0 then
        out[#out + 1] = event
      elseif is_usage(event) then
        out[#out + 1], last = with_fingerprint(last, event), ""
      else
        local ends = event:find('"finish_reason"%s*:%s*"')
        out[#out + 1] = ends and last or last .. event
        last = ends and event or ""
      end
      from, passed = stop + 1, 0
      _, stop = text:find("\r?\n\r?\n", from)
    end
    held = text:sub(from)
    -- Envoy ends a body with an empty chunk: send what is held.
    if size == 0 or passed > 0 or #held > MAX_EVENT then
      out[#out + 1] = last .. held:sub(passed + 1)
      -- The next chunk needs at most so many bytes to complete a blank line.
      held, last = held:sub(-3), ""
      passed = #held
    end
    chunk:setBytes(table.concat(out))
  end
end
