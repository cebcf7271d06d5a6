//! The servers of these tests do what the tests ask of them.

use crate::servers::{postgres::Postgres, redis::Redis};

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

#[test]
fn a_killed_postgres_has_its_data_when_it_starts_again() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    postgres.sql("CREATE TABLE kept (number int); INSERT INTO kept VALUES (7)");
    postgres.restart();
    assert_eq!(postgres.sql("SELECT number FROM kept"), "7");
    assert_eq!(postgres.sql("SHOW port"), postgres.port().to_string());
}

#[test]
fn a_paused_postgres_answers_when_it_is_resumed() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    postgres.pause();
    postgres.resume();
    assert_eq!(postgres.sql("SELECT 1"), "1");
    postgres.let_in("host all all 127.0.0.1/32 reject");
    assert!(postgres.log().contains("SIGHUP"), "{}", postgres.url());
}
