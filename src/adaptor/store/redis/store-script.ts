/**
 * The store's data in Redis, all with one hash tag so that a cluster keeps them together. The order is the script's.
 * Times are ms since the epoch; members of the two indices are `<value> NUL <id>` with score 0, searched by range.
 */
export const KEYS = [
  "meta", // schema, epoch, epochCreatedAt, seq (grows with every change), lease (the last one given), agreed:*
  "sandboxes", // id → record, JSON
  "sandbox-keys", // id → revision LF phase LF node
  "sandboxes-by-phase",
  "sandboxes-by-node",
  "operations", // id → record, JSON; input and fault in it are JSON texts
  "operations-active", // kind NUL subject → id
  "operations-queued", // id by wake-up time
  "operations-running", // id by end of its lease
  "subjects-running", // subject → id
  "operations-by-subject",
  "operations-by-time", // id by submission
  "operations-finished", // id by end
  "nodes", // id → boot id LF time: of adaptors from before facts, which may share the store during an upgrade
  "changes", // stream: who wrote (by), what (kind), content (body)
  "facts", // name → "=" and value
  "leads", // name → token LF holder LF end
] as const;

/** Version of the layout above. A higher one comes with an entry in MIGRATIONS. */
export const SCHEMA = 1;

/** How many changes are kept for adaptors that were away; who was away for longer reads everything again. */
const CHANGES_KEPT = 2000;

/**
 * Carries out a list of commands, all in one step: either all of them reach Redis (and its append-only file) or none.
 * Each succeeds or fails alone, before it has written anything.
 *
 * ARGV: epoch, schema, the highest seq that the caller has seen, holder, lease ms, now ms, now RFC 3339; then for each
 * command its name, the number of its arguments and these. Returns {status, seq, result…}: status is `ok`, or `other`
 * when this is not the data that the caller knows (then nothing was done).
 */
export const STORE_SCRIPT = `
local META, SANDBOXES, SANDBOX_KEYS, BY_PHASE, BY_NODE, OPERATIONS, ACTIVE, QUEUED, RUNNING, SUBJECTS, BY_SUBJECT,
  BY_TIME, FINISHED, NODES, CHANGES, FACTS, LEADS = unpack(KEYS)
local holder, leaseMs, now, nowText = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local known = redis.call('HMGET', META, 'epoch', 'schema', 'seq')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or tonumber(known[3]) < tonumber(ARGV[3]) then return {'other', 0} end
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false
local command = {}

local function ids(key, value)
  local found = redis.call('ZRANGEBYLEX', key, '[' .. value .. '\\0', '(' .. value .. '\\1')
  for i, member in ipairs(found) do found[i] = string.sub(member, #value + 2) end
  return found
end
local function read(key, wanted)
  local found = {}
  for first = 1, #wanted, 1000 do
    for _, body in ipairs(redis.call('HMGET', key, unpack(wanted, first, math.min(first + 999, #wanted)))) do
      if body then found[#found + 1] = body end
    end
  end
  return found
end
local function tell(kind, body)
  redis.call('XADD', CHANGES, 'MAXLEN', '~', '${CHANGES_KEPT}', '*', 'by', holder, 'kind', kind, 'body', body)
end

-- Sandboxes ----------------------------------------------------------------------------------------------------------
local function unindex(id)
  local keys = redis.call('HGET', SANDBOX_KEYS, id)
  if not keys then return nil end
  local revision, phase, node = string.match(keys, '^(%d+)\\n([^\\n]*)\\n(.*)$')
  return revision, function()
    redis.call('ZREM', BY_PHASE, phase .. '\\0' .. id)
    redis.call('ZREM', BY_NODE, node .. '\\0' .. id)
  end
end
local function put(id, revision, phase, node, body)
  redis.call('HSET', SANDBOXES, id, body)
  redis.call('HSET', SANDBOX_KEYS, id, revision .. '\\n' .. phase .. '\\n' .. node)
  redis.call('ZADD', BY_PHASE, 0, phase .. '\\0' .. id)
  redis.call('ZADD', BY_NODE, 0, node .. '\\0' .. id)
  tell('sandbox', body)
  changed = true
  return 1
end
function command.insert(id, phase, node, body)
  if redis.call('HEXISTS', SANDBOXES, id) == 1 then return 0 end
  return put(id, '1', phase, node, body)
end
function command.update(id, expected, revision, phase, node, body)
  local current, remove = unindex(id)
  if current ~= expected then return 0 end
  remove()
  return put(id, revision, phase, node, body)
end
function command.remove(id, expected)
  local current, remove = unindex(id)
  if current ~= expected then return 0 end
  remove()
  redis.call('HDEL', SANDBOXES, id)
  redis.call('HDEL', SANDBOX_KEYS, id)
  tell('removed', id)
  changed = true
  return 1
end
function command.sandbox(id) return redis.call('HGET', SANDBOXES, id) end
function command.sandboxes(...)
  local phases, wanted = {...}, {}
  if #phases == 0 then return redis.call('HVALS', SANDBOXES) end
  for _, phase in ipairs(phases) do
    for _, id in ipairs(ids(BY_PHASE, phase)) do wanted[#wanted + 1] = id end
  end
  return read(SANDBOXES, wanted)
end
function command.scan(phase, after, limit)
  local wanted = redis.call('ZRANGEBYLEX', BY_PHASE, '(' .. phase .. '\\0' .. after, '(' .. phase .. '\\1', 'LIMIT', 0, limit)
  for i, member in ipairs(wanted) do wanted[i] = string.sub(member, #phase + 2) end
  return read(SANDBOXES, wanted)
end
function command.ofNode(node) return read(SANDBOXES, ids(BY_NODE, node)) end
function command.count(...)
  local sum = 0
  for _, phase in ipairs({...}) do
    sum = sum + redis.call('ZLEXCOUNT', BY_PHASE, '[' .. phase .. '\\0', '(' .. phase .. '\\1')
  end
  return sum
end

-- Operations ---------------------------------------------------------------------------------------------------------
local function load(id)
  local body = redis.call('HGET', OPERATIONS, id)
  return body and cjson.decode(body), body
end
local function save(row)
  local body = cjson.encode(row)
  redis.call('HSET', OPERATIONS, row.id, body)
  changed = true
  return body
end
local function finish(row)
  row.finishedAt = nowText
  redis.call('HDEL', ACTIVE, row.kind .. '\\0' .. row.subject)
  redis.call('ZADD', FINISHED, now, row.id)
  local body = save(row)
  tell('operation', body)
  return body
end
local function release(row)
  redis.call('ZREM', RUNNING, row.id)
  redis.call('HDEL', SUBJECTS, row.subject)
end
local function queue(row, wakeAt)
  row.state, row.wakeAt = 'queued', wakeAt
  redis.call('ZADD', QUEUED, wakeAt, row.id)
  return save(row)
end
function command.submit(id, kind, subject, priority, input)
  local active = redis.call('HGET', ACTIVE, kind .. '\\0' .. subject)
  local known = redis.call('HGET', OPERATIONS, active or id)
  if known then return known end
  redis.call('HSET', ACTIVE, kind .. '\\0' .. subject, id)
  redis.call('ZADD', BY_SUBJECT, 0, subject .. '\\0' .. id)
  redis.call('ZADD', BY_TIME, now, id)
  return queue({id = id, kind = kind, subject = subject, priority = tonumber(priority), input = input, attempt = 0,
    lease = 0, submittedAt = nowText}, now)
end
function command.operation(id) return redis.call('HGET', OPERATIONS, id) end
function command.operations(from, value, limit)
  if from == 'subject' then return read(OPERATIONS, ids(BY_SUBJECT, value)) end
  if from == 'active' then
    local wanted = redis.call('ZRANGE', QUEUED, 0, -1)
    for _, id in ipairs(redis.call('ZRANGE', RUNNING, 0, -1)) do wanted[#wanted + 1] = id end
    return read(OPERATIONS, wanted)
  end
  return read(OPERATIONS, redis.call('ZREVRANGE', BY_TIME, 0, limit - 1))
end
local function itsTurn(row)
  if row.state == 'running' then return row.holder == holder end
  if row.state ~= 'queued' or row.wakeAt > now or redis.call('HEXISTS', SUBJECTS, row.subject) == 1 then return false end
  for _, id in ipairs(ids(BY_SUBJECT, row.subject)) do
    local other = load(id)
    if other and other.state == 'queued' and other.priority < row.priority and other.wakeAt <= now then return false end
  end
  return true
end
function command.begin(id)
  local row = load(id)
  if not row or not itsTurn(row) then return false end
  if row.state == 'queued' then row.attempt = row.attempt + 1 end
  row.state, row.holder, row.progress = 'running', holder, nil
  row.lease = redis.call('HINCRBY', META, 'lease', 1)
  redis.call('ZREM', QUEUED, id)
  redis.call('ZADD', RUNNING, clock + leaseMs, id)
  redis.call('HSET', SUBJECTS, row.subject, id)
  return save(row)
end
local function held(id, lease)
  local row, body = load(id)
  if row and row.state == 'running' and row.lease == tonumber(lease) then return row, body end
end
function command.renew(id, lease)
  local row, body = held(id, lease)
  if not row then return false end
  redis.call('ZADD', RUNNING, clock + leaseMs, id)
  changed = true
  return body
end
function command.note(id, lease, progress)
  local row = held(id, lease)
  if not row then return 0 end
  row.progress = progress
  save(row)
  return 1
end
function command.settle(id, lease, state, wakeAt, uncounted, fault)
  local row = held(id, lease)
  if not row then return false end
  release(row)
  row.holder, row.progress, row.fault = nil, nil, nil
  if fault ~= '' then row.fault = fault end
  if state == 'queued' then
    row.attempt = row.attempt - tonumber(uncounted)
    local body = queue(row, tonumber(wakeAt))
    if fault ~= '' then tell('operation', body) end
    return body
  end
  row.state, row.wakeAt = state, 0
  return finish(row)
end
function command.cancelQueued(id, fault)
  local row = load(id)
  if not row or row.state ~= 'queued' then return 0 end
  redis.call('ZREM', QUEUED, id)
  row.state, row.fault = 'cancelled', fault
  finish(row)
  return 1
end
function command.requestCancel(id, reason)
  local row = load(id)
  if not row or row.state ~= 'running' then return 0 end
  row.cancelReason = reason
  tell('operation', save(row))
  return 1
end
function command.requeueAbandoned(ownLease)
  local count = 0
  for _, id in ipairs(redis.call('ZRANGE', RUNNING, 0, -1)) do
    local row = load(id)
    local over = tonumber(redis.call('ZSCORE', RUNNING, id)) < clock
    if over or (row.holder == holder and row.lease <= tonumber(ownLease)) then
      release(row)
      row.holder, row.progress = nil, nil
      queue(row, now)
      count = count + 1
    end
  end
  return count
end
function command.prune(before)
  local old = redis.call('ZRANGEBYSCORE', FINISHED, '-inf', '(' .. before, 'LIMIT', 0, 1000)
  for _, id in ipairs(old) do
    local row = load(id)
    if row then redis.call('ZREM', BY_SUBJECT, row.subject .. '\\0' .. id) end
    redis.call('HDEL', OPERATIONS, id)
    redis.call('ZREM', BY_TIME, id)
    redis.call('ZREM', FINISHED, id)
    changed = true
  end
  return #old
end

-- Facts and what all agree on ----------------------------------------------------------------------------------------
function command.fact(name) return redis.call('HGET', FACTS, name) end
function command.facts(prefix)
  local all, found = redis.call('HGETALL', FACTS), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, #prefix) == prefix then
      found[#found + 1] = all[i]
      found[#found + 1] = string.sub(all[i + 1], 2)
    end
  end
  return found
end
function command.swap(name, expected, following)
  if (redis.call('HGET', FACTS, name) or '') ~= expected then return 0 end
  if following == '' then redis.call('HDEL', FACTS, name) else redis.call('HSET', FACTS, name, following) end
  changed = true
  return 1
end
function command.lead(name, ms)
  local token, who, ends = string.match(redis.call('HGET', LEADS, name) or '0\\n\\n0', '^(%d+)\\n([^\\n]*)\\n(%d+)$')
  if who ~= holder then
    if tonumber(ends) > clock then return '' end
    token = string.format('%d', tonumber(token) + 1)
    changed = true
  end
  redis.call('HSET', LEADS, name, string.format('%s\\n%s\\n%.0f', token, holder, clock + tonumber(ms)))
  return token
end
function command.beginEpoch(instead, id, createdAt)
  if known[1] ~= instead then return 0 end
  local lease = math.max(tonumber(redis.call('HGET', META, 'lease') or 0), clock)
  redis.call('HSET', META, 'epoch', id, 'epochCreatedAt', createdAt, 'lease', string.format('%.0f', lease))
  changed = true
  return 1
end
function command.agree(key, value)
  if redis.call('HSETNX', META, 'agreed:' .. key, value) == 1 then changed = true end
  return redis.call('HGET', META, 'agreed:' .. key)
end

local answer = {'ok', 0}
local at = 8
while ARGV[at] do
  local count = tonumber(ARGV[at + 1])
  answer[#answer + 1] = command[ARGV[at]](unpack(ARGV, at + 2, at + 1 + count)) or ''
  at = at + 2 + count
end
answer[2] = changed and redis.call('HINCRBY', META, 'seq', 1) or tonumber(known[3])
return answer
`;

/**
 * Finds out what is there, and makes it ours. KEYS: meta. ARGV: a new epoch's id, now RFC 3339, schema, then the epoch,
 * its begin and the seq that the caller has seen. Returns {what, epoch, epochCreatedAt, seq, lease}; what is `known`
 * (nothing special), `new` (it was empty), `older` (a lower seq of the same epoch than was seen, or an epoch from before
 * the one that was: it was set back), or `schema` (second value: its version). A new epoch is begun for `new` and
 * `older`.
 */
export const OPEN_SCRIPT = `
local meta = KEYS[1]
local schema = redis.call('HGET', meta, 'schema')
if schema and schema ~= ARGV[3] then return {'schema', schema} end
local what = 'known'
if not schema then what = 'new'
elseif redis.call('HGET', meta, 'epoch') == ARGV[4] then
  if tonumber(redis.call('HGET', meta, 'seq')) < tonumber(ARGV[6]) then what = 'older' end
elseif redis.call('HGET', meta, 'epochCreatedAt') < ARGV[5] then what = 'older'
end
if what ~= 'known' then
  -- Leases from before must stay lower than those that follow, though their counter is lost: it goes on from the time.
  local time = redis.call('TIME')
  local lease = math.max(tonumber(redis.call('HGET', meta, 'lease') or 0), time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', meta, 'schema', ARGV[3], 'epoch', ARGV[1], 'epochCreatedAt', ARGV[2],
    'seq', redis.call('HGET', meta, 'seq') or 0, 'lease', string.format('%.0f', lease))
end
local now = redis.call('HMGET', meta, 'epoch', 'epochCreatedAt', 'seq', 'lease')
return {what, now[1], now[2], now[3], now[4]}
`;

/**
 * What takes the data from schema n to n + 1: scripts on the same KEYS as the store's, by n. Each is wrapped so that it
 * runs once whoever comes first, in one step with the new version number. An adaptor that does not know the new version
 * stops writing at once, so a migration that a rolling upgrade must survive leaves the number alone (and only adds).
 */
export const MIGRATIONS: ReadonlyMap<number, string> = new Map();

export function migrationScript(from: number, body: string): string {
  return `
if redis.call('HGET', KEYS[1], 'schema') ~= '${from}' then return 0 end
${body}
redis.call('HSET', KEYS[1], 'schema', '${from + 1}')
redis.call('HINCRBY', KEYS[1], 'seq', 1)
return 1
`;
}
