//! The command line, and what is shown of a URL.

use crate::{
    options::{Mode, Options},
    shared_store::Place,
};

fn read(arguments: &[&str], redis_url: Option<&str>) -> Result<Options, String> {
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    Options::read(&arguments, |name| {
        assert_eq!(name, "REDIS_URL");
        redis_url.map(str::to_owned)
    })
}

#[test]
fn a_url_on_the_command_line_comes_before_the_variable() {
    let options = read(&["--processes", "8", "redis://one"], Some("redis://two")).unwrap();
    assert_eq!(options.url.as_deref(), Some("redis://one"));
    assert_eq!((options.processes, options.mode), (8, Mode::Supervise));
    let options = read(&["join"], Some("redis://two")).unwrap();
    assert_eq!(options.url.as_deref(), Some("redis://two"));
    assert_eq!(options.mode, Mode::Join);
    assert_eq!(read(&[], None).unwrap().url, None);
}

#[test]
fn an_argument_that_is_wrong_is_named() {
    for (arguments, named) in [
        (&["--processes"][..], "--processes needs a number"),
        (&["--processes", "0"], "--processes needs a number"),
        (&["--port", "99999"], "--port needs a number"),
        (&["localhost"], "localhost is neither"),
    ] {
        let problem = read(arguments, None).unwrap_err();
        assert!(problem.starts_with(named), "{problem}");
    }
}

#[test]
fn a_password_in_the_url_is_not_shown() {
    let shown = |url: &str| Place::Redis(url.to_owned()).describe();
    let with_password = shown("redis://user:secret@example.com:6379/2");
    assert_eq!(with_password, "the Redis at example.com:6379/2");
    assert_eq!(shown("redis://127.0.0.1"), "the Redis at 127.0.0.1");
}

#[test]
fn a_url_of_another_scheme_is_refused() {
    let opened = Place::Redis("http://127.0.0.1".to_owned()).open("test:");
    assert!(opened.is_err());
}
