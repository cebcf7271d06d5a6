//! The servers of these tests do what the tests ask of them.

use crate::servers::redis::Redis;

#[test]
fn a_killed_redis_has_its_data_when_it_starts_again() {
    let Some(redis) = Redis::start() else { return };
    assert_eq!(redis.run(&["SET", "key", "value"]), "+OK");
    redis.restart();
    assert_eq!(redis.run(&["GET", "key"]), "value");
    assert!(redis.directory().join("appendonlydir").is_dir());
    let text = redis.run(&["INFO", "server"]);
    assert!(
        text.contains(&format!("tcp_port:{}", redis.port())),
        "{text}"
    );
}

#[test]
fn a_paused_redis_answers_when_it_is_resumed() {
    let Some(redis) = Redis::start_with(&["--requirepass", "password"]) else {
        return;
    };
    redis.pause();
    redis.resume();
    assert!(redis.command(&["PING"]).starts_with("-NOAUTH"));
    let authenticated = redis.commands(&[&["AUTH", "password"], &["PING"]]);
    assert_eq!(authenticated, "+PONG", "{}", redis.url());
}
