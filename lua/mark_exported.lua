#!lua flags=allow-oom
-- mark_exported: note how far the export has read a tenant's audit log, by compare-and-set
-- KEYS
--   audit_marks     <schema>:{p}:<tenant>:am            how far the export has read
-- ARGV
--   expected        the mark that the export started from: `0-0` for none
--   exported        the last entry that is stored outside
--   count           entries since the mark
--   ttl_ms          life time of the marks
-- RETURNS
--   0 marked        nothing more
--   1 changed       another pod has moved the mark: to this entry
-- GUARANTEES
--   Of two pods that export the same entries one moves the mark. The other one's copies are duplicates, recognised by
--   their ids.
local there = redis.call('HGET', KEYS[1], 'exported') or '0-0'
if there ~= ARGV[1] then return { 1, there } end
redis.call('HSET', KEYS[1], 'exported', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'position', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { 0 }
