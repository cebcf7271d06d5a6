//! The statements, as Lua scripts that the server runs as one step.
//!
//! The record is a hash of `version` and `text`, the lock a string with its owner. A statement has no key that it does not need:
//! while a cluster moves a slot, one that needs both is refused.

use std::sync::OnceLock;

use redis::Script;

/// Stands for the version of a record that does not exist.
pub(super) const NONE: &str = "none";

/// A script, whose hash is computed once.
pub(super) struct Statement {
    pub(super) text: &'static str,
    script: OnceLock<Script>,
}

impl Statement {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            script: OnceLock::new(),
        }
    }

    /// The name under which a server knows a script that it has run.
    pub(super) fn hash(&self) -> &str {
        self.script
            .get_or_init(|| Script::new(self.text))
            .get_hash()
    }
}

/// Key: the record. Returns whether the key exists, the version and the text.
///
/// A replica would answer with what it had. So the script writes, which a replica refuses: it deletes a field that no record has.
pub(super) static GET: Statement = Statement::new(
    "
local wrote = redis.pcall('HDEL', KEYS[1], '')
if type(wrote) == 'table' and wrote.err and string.find(wrote.err, 'READONLY', 1, true) then
    return wrote
end
local stored = redis.call('HMGET', KEYS[1], 'version', 'text')
return {redis.call('EXISTS', KEYS[1]), stored[1], stored[2]}",
);

/// Key: the lock. Arguments: the owner, and the lease in milliseconds. Returns 0 if the owner has the lock, and else how long another one has
/// it: below 0 without end. A call that is sent twice, because its answer was lost, has the lock too.
pub(super) static ACQUIRE: Statement = Statement::new(
    "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return 0
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 0
end
local left = redis.call('PTTL', KEYS[1])
if left == 0 then
    return 1
end
return left",
);

/// Key: the lock. Arguments: the owner, and the lease in milliseconds. Returns whether the owner had the lock.
pub(super) static RENEW: Statement = Statement::new(
    "
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0",
);

/// Key: the record. Arguments: the version, the text, the version that it replaces or `none`, and the lifetime in milliseconds, 0
/// for none. Returns the version that is stored afterwards, or `none`. A user may lack the permission to publish.
pub(super) static PUT: Statement = Statement::new(
    "
local stored = redis.call('HMGET', KEYS[1], 'version')[1]
if not stored then
    if redis.call('EXISTS', KEYS[1]) == 1 then
        return 'no version'
    end
    stored = 'none'
end
if stored ~= ARGV[3] then
    return stored
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'text', ARGV[2])
if ARGV[4] == '0' then
    redis.call('PERSIST', KEYS[1])
else
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.pcall('PUBLISH', KEYS[1], ARGV[1])
return ARGV[1]",
);

/// Keys: the record, and the lock. Argument: the owner. Returns whether the owner had the lock. A key of another type stays:
/// reading it as a hash fails.
pub(super) static DELETE: Statement = Statement::new(
    "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('HMGET', KEYS[1], 'version')
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], 'none')
return 1",
);

/// Key: the lock. Argument: the owner.
pub(super) static RELEASE: Statement = Statement::new(
    "
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0",
);
