//! The rules of CONTRIBUTING.md that a scan of the sources can check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines.
const MAX_FILE_LINES: usize = 500;

/// Longest comment line, in columns.
const MAX_COMMENT_COLUMNS: usize = 110;

/// Words that must not begin a doc comment: they announce an answer instead of giving it, or refer to another
/// comment.
const FORBIDDEN_FIRST_WORDS: [&str; 15] = [
    "What",
    "Whether",
    "Who",
    "Whoever",
    "How",
    "Of",
    "As",
    "Those",
    "Whichever",
    "When",
    "Where",
    "It",
    "Its",
    "They",
    "Their",
];

/// Words that comments and docs do not use, with what they have instead: the table of CONTRIBUTING.md, as far
/// as a word has no other meaning. Texts in backquotes are exempt: names, and what was measured.
const FORBIDDEN_WORDS: [(&[&str], &str); 8] = [
    (&["say", "says", "said", "tell", "tells", "told"], "send, report, return, show"),
    (&["hear", "hears", "heard"], "receive"),
    (&["gone"], "disconnected, closed, left"),
    (&["takes itself for"], "treated as"),
    (&["whoever", "somebody", "nobody"], "the client, the caller, no client"),
    (&["patience", "farewell"], "timeout, close handshake"),
    (&["anew", "all the same"], "again, anyway"),
    (&["beside"], "next to, in addition to"),
];

/// Public type names that may be defined more than once, each with the reason.
const ALLOWED_DUPLICATES: [(&str, &str); 0] = [];

const KINDS: [&str; 5] = ["struct ", "enum ", "trait ", "type ", "union "];

/// Every file below `folders` with this extension, with its path relative to the repository.
fn sources(folders: &[&str], extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "node_modules") {
                open.push(path);
            } else if path.extension().is_some_and(|of_path| of_path == extension) {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folders:?} has no sources");
    found
}

fn rust() -> Vec<(String, String)> {
    sources(&["src", "tests", "compat-tests"], "rs")
}

/// The type that a line defines, and true if code outside its module's parent can use it.
fn defined_type(line: &str) -> Option<(&str, bool)> {
    let line = line.trim_start();
    let (public, rest) = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with(' ') => (true, rest.trim_start()),
        Some(rest) if rest.starts_with('(') => (rest.starts_with("(crate)"), rest.split_once(") ")?.1),
        _ => (false, line),
    };
    let name = KINDS.iter().find_map(|kind| rest.strip_prefix(kind))?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    let is_associated_type = line.starts_with("type ") && !public;
    let is_definition = name.starts_with(|c: char| c.is_uppercase()) && !is_associated_type;
    is_definition.then_some((&name[..end], public))
}

/// The doc comments of a source: line number and text of the first line of each.
fn doc_comments(source: &str) -> Vec<(usize, &str)> {
    let text_of = |line: &'_ str| {
        let line = line.trim_start();
        line.starts_with("///")
            .then(|| line.len() - line[3..].trim_start().len())
            .or_else(|| line.starts_with("//!").then(|| line.len() - line[3..].trim_start().len()))
    };
    let mut previous = false;
    let mut found = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let here = text_of(line);
        if let (Some(start), false) = (here, previous) {
            found.push((number + 1, &line.trim_start()[start..]));
        }
        previous = here.is_some();
    }
    found
}

/// Fails if a rule is violated.
fn report(rule: &str, fix: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}; {} places do not. {fix}\n  {}", wrong.len(), wrong.join("\n  "));
}

#[test]
fn public_type_names_are_unique() {
    let mut public: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for (file, source) in sources(&["src"], "rs") {
        for (number, line) in source.lines().enumerate() {
            if let Some((name, is_public)) = defined_type(line) {
                *all.entry(name.to_owned()).or_default() += 1;
                if is_public {
                    public.entry(name.to_owned()).or_default().push(format!("{file}:{}", number + 1));
                }
            }
        }
    }
    assert!(public.len() > 100, "the scan found {} public types only", public.len());
    let shared = all.values().filter(|definitions| **definitions > 1).count();
    println!("{shared} type names are defined more than once, private ones included");
    let twice: BTreeMap<_, _> = public.into_iter().filter(|(_, places)| places.len() > 1).collect();
    for (name, reason) in ALLOWED_DUPLICATES {
        assert!(
            twice.contains_key(name),
            "{name} is unique now: delete it from ALLOWED_DUPLICATES ({reason})"
        );
    }
    let wrong: Vec<String> = twice
        .iter()
        .filter(|(name, _)| ALLOWED_DUPLICATES.iter().all(|(allowed, _)| name != allowed))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    report(
        "each public type name stands for one thing",
        "Rename one after what it is (`PipeSocket`, not `Line`), or make it private.",
        &wrong,
    );
}

#[test]
fn doc_comments_begin_with_their_subject() {
    let mut wrong = Vec::new();
    // In a schema every comment documents what follows.
    let schemas =
        sources(&["proto"], "proto").into_iter().map(|(file, source)| (file, source.replace("//", "///")));
    for (file, source) in rust().into_iter().chain(schemas) {
        for (number, text) in doc_comments(&source) {
            let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if FORBIDDEN_FIRST_WORDS.contains(&word) {
                wrong.push(format!("{file}:{number}: {text}"));
            }
        }
    }
    report(
        "doc comments begin with a noun phrase or a verb in the third person",
        "Write \"Returns true if …\" for \"Whether …\", \"Longest …\" for \"How long …\", \"Client that …\" for \"Who …\".",
        &wrong,
    );
}

/// The comment of a line of Rust, if it has one. A `//` within a string is none.
fn comment(line: &str) -> Option<&str> {
    line.match_indices("//").map(|(at, _)| line.split_at(at)).find_map(|(code, comment)| {
        let begins = code.is_empty() || code.ends_with(' ');
        (begins && code.matches('"').count() % 2 == 0).then_some(comment)
    })
}

/// The forbidden word or phrase in a text, with what to write instead.
fn forbidden_word(text: &str) -> Option<(&'static str, &'static str)> {
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join("`").to_lowercase();
    let words: Vec<&str> =
        prose.split(|c: char| !(c.is_alphanumeric() || c == '-')).filter(|word| !word.is_empty()).collect();
    let text = format!(" {} ", words.join(" "));
    FORBIDDEN_WORDS.into_iter().find_map(|(forbidden, instead)| {
        let found = forbidden.iter().find(|word| text.contains(&format!(" {word} ")))?;
        Some((*found, instead))
    })
}

#[test]
fn prose_uses_the_terms_of_the_protocol() {
    let comments = rust().into_iter().map(|(file, source)| {
        let comments: Vec<_> = source.lines().map(|line| comment(line).unwrap_or_default()).collect();
        (file, comments.join("\n"))
    });
    let docs = sources(&["docs"], "md").into_iter();
    let pages = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        (name.to_owned(), fs::read_to_string(path).unwrap())
    });
    let mut wrong = Vec::new();
    for (file, source) in comments.chain(docs).chain(pages) {
        for (number, line) in source.lines().enumerate() {
            if let Some((word, instead)) = forbidden_word(line) {
                wrong.push(format!("{file}:{}: {word} (instead: {instead})", number + 1));
            }
        }
    }
    report("comments and docs use the words of CONTRIBUTING.md", "See its table under Prose.", &wrong);
}

#[test]
fn forbidden_words_are_seen() {
    assert_eq!(comment("let url = \"ws://host\"; // It is told."), Some("// It is told."));
    assert_eq!(comment("    /// A field."), Some("/// A field."));
    assert_eq!(comment("let url = \"ws: //host\";"), None);
    let word = |text| forbidden_word(text).map(|(word, _)| word);
    assert_eq!(word("// The client is Told, once."), Some("told"));
    assert_eq!(word("// It is all the same to a peer."), Some("all the same"));
    assert_eq!(word("// `told` and `the opener is gone`, besides a foretold `end`"), None);
}

#[test]
fn files_are_short() {
    let wrong: Vec<String> = rust()
        .iter()
        .map(|(file, source)| (file, source.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    report("files have at most 500 lines", "Split the file by what it does.", &wrong);
}

#[test]
fn comment_lines_are_short() {
    let mut wrong = Vec::new();
    for (file, source) in rust() {
        for (number, line) in source.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            // Neither a table nor an address can be wrapped.
            let unbreakable = line.contains("| ") || line.contains("://");
            if comment && !unbreakable && line.chars().count() > MAX_COMMENT_COLUMNS {
                wrong.push(format!("{file}:{}: {} columns", number + 1, line.chars().count()));
            }
        }
    }
    report("comment lines have at most 110 columns", "Wrap them, or say less.", &wrong);
}

#[test]
fn every_kind_of_definition_is_seen() {
    let public = |line| defined_type(line);
    assert_eq!(public("pub struct Room<T> {"), Some(("Room", true)));
    assert_eq!(public("    pub(crate) enum Side {"), Some(("Side", true)));
    assert_eq!(public("pub(super) trait Codec: Send {"), Some(("Codec", false)));
    assert_eq!(public("pub type Id = u64;"), Some(("Id", true)));
    assert_eq!(public("struct Unit;"), Some(("Unit", false)));
    assert_eq!(public("    type Item = u8;"), None);
    assert_eq!(public("// struct Gone;"), None);
    let source = "//! A page.\n//! More.\n\n/// What it is.\nfn f() {}\n    /// A field.\n    // Not this.\n";
    assert_eq!(doc_comments(source), [(1, "A page."), (4, "What it is."), (6, "A field.")]);
}

/// The file and those of its modules.
fn module_files(root: &Path) -> Vec<PathBuf> {
    let mut files = vec![root.to_owned()];
    let mut at = 0;
    while at < files.len() {
        let (source, file) = (fs::read_to_string(&files[at]).unwrap(), files[at].clone());
        let is_folder = at == 0 || file.ends_with("mod.rs");
        let folder = if is_folder { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        let private =
            |line: &'_ str| line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").to_owned();
        let lines: Vec<String> = source.lines().map(private).collect();
        let names = lines.iter().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        for name in names {
            let paths = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
            files.extend(paths.into_iter().filter(|path| path.is_file()));
        }
        at += 1;
    }
    files
}

/// A file that is no module is compiled by nothing, and its tests never run.
#[test]
fn each_file_of_the_merged_tests_is_a_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for folder in ["tests/gateway", "tests/program", "tests/rules", "compat-tests/tests/comparison"] {
        let compiled = module_files(&root.join(folder).join("main.rs"));
        let files = sources(&[folder], "rs").into_iter().map(|(name, _)| name);
        wrong.extend(files.filter(|name| !compiled.contains(&root.join(name))));
    }
    report("files of the merged tests are modules", "Name them in main.rs.", &wrong);
}

#[test]
fn binaries_without_a_test_harness_have_no_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    for folder in [".", "compat-tests", "compat-tests/hotpath"].map(|folder| root.join(folder)) {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        for binary in manifest["bin"].as_array().unwrap() {
            if binary.get("test").and_then(|test| test.as_bool()) != Some(false) {
                continue;
            }
            for file in module_files(&folder.join(binary["path"].as_str().unwrap())) {
                let source = fs::read_to_string(&file).unwrap();
                if ["#[test]", "#[tokio::test", "cfg(test)"].iter().any(|mark| source.contains(mark)) {
                    wrong.push(file.display().to_string());
                }
                seen.push(file);
            }
        }
    }
    for file in ["src/service_manager.rs", "compat-tests/src/bin/attack/main.rs"] {
        assert!(seen.iter().any(|seen| seen.ends_with(file)), "{file} was not looked at: {seen:?}");
    }
    report("binaries with `test = false` have no tests", "Delete that line of Cargo.toml.", &wrong);
}
