//! The page `tests/README.md` agrees with the tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The number of the last requirement.
const LAST: u32 = 46;

/// The longest name of a test.
const LONGEST: usize = 60;

// === The page ===

/// A requirement, as the page has it.
#[derive(Default)]
struct Requirement {
    text: String,
    is_open: bool,
    tests: Vec<String>,
}

/// The requirements of the page by their numbers.
fn requirements() -> BTreeMap<u32, Requirement> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md");
    let page = fs::read_to_string(page).expect("tests/README.md");
    let mut requirements = BTreeMap::new();
    let mut current = None;
    for line in page.lines().map(str::trim) {
        if line.starts_with('#') {
            current = heading(line);
            if let Some(number) = current {
                let before = requirements.insert(number, Requirement::default());
                assert!(before.is_none(), "R{number} is there twice");
            }
        } else if let Some(requirement) = current.and_then(|n| requirements.get_mut(&n)) {
            match line {
                "Open." => requirement.is_open = true,
                _ => match line.strip_prefix("- `").and_then(|l| l.strip_suffix('`')) {
                    Some(test) => requirement.tests.push(test.to_owned()),
                    None => requirement.text.push_str(line),
                },
            }
        }
    }
    requirements
}

/// The number of a heading of the form `### R4: …`.
fn heading(line: &str) -> Option<u32> {
    let (number, _) = line.strip_prefix("### R")?.split_once(':')?;
    number.parse().ok()
}

// === The tests ===

/// The names of all tests below the folders that may have some, in the order of their files.
fn tests() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    for folder in ["benches", "examples", "src", "tests"] {
        collect(&root.join(folder), &mut tests);
    }
    assert!(tests.len() > 500, "only {} tests were found", tests.len());
    tests
}

/// Adds the tests of the Rust files below a folder. A package may lack a folder.
fn collect(folder: &Path, tests: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, tests);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests.extend(tests_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names of the functions of a source with an attribute that makes them tests.
fn tests_of(source: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if !is_test || line.starts_with("//") {
            continue;
        }
        if let Some(name) = function(line) {
            tests.extend(Some(name.to_owned()).filter(|name| !name.is_empty()));
            is_test = false;
        }
    }
    tests
}

/// The name of the function that a line declares. Empty in a macro, where the name is a variable.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_declaration = before.is_empty() || before.ends_with([' ', ']']);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
    is_declaration.then(|| &after[..end])
}

/// The number in a name of the form `r04_…`.
fn number(test: &str) -> Option<u32> {
    let (number, rest) = test.strip_prefix('r')?.split_once('_')?;
    let is_number = number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !rest.is_empty()).then(|| number.parse().unwrap())
}

// === They agree ===

#[test]
fn every_numbered_test_is_listed_under_its_requirement() {
    let requirements = requirements();
    let missing: Vec<_> = tests()
        .into_iter()
        .filter(|test| {
            number(test).is_some_and(|number| {
                let requirement = requirements.get(&number);
                requirement.is_none_or(|requirement| !requirement.tests.contains(test))
            })
        })
        .collect();
    assert!(missing.is_empty(), "not in tests/README.md: {missing:#?}");
}

#[test]
fn every_listed_test_exists_under_its_number() {
    let tests: BTreeSet<_> = tests().into_iter().collect();
    for (n, requirement) in requirements() {
        for test in requirement.tests {
            assert!(tests.contains(&test), "R{n} lists {test}, which is no test");
            let own = number(&test);
            assert!(own.is_none_or(|own| own == n), "{test} is listed by R{n}");
        }
    }
}

#[test]
fn every_requirement_has_a_sentence_and_tests_unless_open() {
    let requirements = requirements();
    let numbers: Vec<_> = requirements.keys().copied().collect();
    assert_eq!(numbers, (1..=LAST).collect::<Vec<_>>());
    for (number, requirement) in requirements {
        assert!(requirement.text.ends_with('.'), "R{number} has no sentence");
        let is_open = requirement.is_open;
        assert_eq!(requirement.tests.is_empty(), is_open, "R{number}");
        let distinct: BTreeSet<_> = requirement.tests.iter().collect();
        assert_eq!(distinct.len(), requirement.tests.len(), "R{number}");
    }
}

#[test]
fn a_numbered_name_is_unique_and_has_at_most_60_characters() {
    let mut seen = BTreeSet::new();
    for test in tests() {
        if number(&test).is_some() {
            assert!(test.len() <= LONGEST, "{test} is too long");
            assert!(seen.insert(test.clone()), "two tests are called {test}");
        }
    }
}
