//! Finds the words of a command, a script or a plain value that may be names of files. Pure.
//!
//! A text is split in several ways, since it may be a command, a list, or one name with spaces. A word that names no file costs
//! nothing, so all of them are tried.

use std::collections::BTreeSet;

/// The maximum length of a word: that of a path.
const WORD_MAX: usize = 4096;

/// The maximum number of words of one text that count.
pub(super) const WORDS_MAX: usize = 10_000;

/// The words of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    max: usize,
    /// What may be a path.
    pub paths: BTreeSet<Vec<u8>>,
    /// Paths of modules that have a dotted name: `a/b` of `python3 -m a.b`.
    pub modules: BTreeSet<Vec<u8>>,
}

/// Finds the words of a text, and at most `max`. `home` is the value of `$HOME`, if it is known.
pub(super) fn words(text: &[u8], home: Option<&[u8]>, max: usize) -> Words {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`;|&()<>={}$!,:".contains(byte);
    let mut words = Words { max, ..Words::default() };
    words.add(text);
    for word in text.split(|byte| matches!(byte, b'"' | b'\'' | b'\n')).chain(text.split(is_end)) {
        words.add_parts(word);
    }
    for word in shell(text, home) {
        words.add_parts(&word);
    }
    words
}

impl Words {
    /// Adds a word, and what it may be without what precedes a path: `@x`, `--a=x`, `a:x`.
    fn add_parts(&mut self, word: &[u8]) {
        self.add(word);
        for part in word.split(|byte| b"=:,@".contains(byte)) {
            self.add(part);
            // Options with their value: `-Fx`, and `-x` of `${a:-x}`.
            if let Some(value) = part.strip_prefix(b"-") {
                self.add(value);
                self.add(value.get(1..).unwrap_or_default());
            }
        }
    }

    fn add(&mut self, word: &[u8]) {
        let word = word.trim_ascii();
        let is_full = self.paths.len() >= self.max;
        if is_full || word.is_empty() || word.len() > WORD_MAX || self.paths.contains(word) {
            return;
        }
        self.paths.insert(word.to_vec());
        if is_module(word) {
            let path = word.iter().map(|&byte| if byte == b'.' { b'/' } else { byte });
            self.modules.insert(path.collect());
        }
    }
}

/// Whether a word is names joined by single dots.
fn is_module(word: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        name.first().is_some_and(|first| !first.is_ascii_digit())
            && name.iter().all(|&byte| is_of_identifier(byte))
    };
    word.contains(&b'.') && word.split(|&byte| byte == b'.').all(is_name)
}

fn is_of_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The words of a shell's commands without their quotes. What a variable or a command gives is left out, except for `$HOME`.
///
/// A text may be of another language, or a comment with a single `'`. So each line begins without a quote.
fn shell(text: &[u8], home: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut reading = Reading { rest: text, home, ..Reading::default() };
    while let Some(byte) = reading.next() {
        reading.take(byte);
    }
    reading.end_all();
    reading.words
}

/// A shell's text that is being read.
#[derive(Default)]
struct Reading<'a> {
    rest: &'a [u8],
    home: Option<&'a [u8]>,
    words: Vec<Vec<u8>>,
    word: Vec<u8>,
    quote: Option<u8>,
    /// The words, and their quotes, in which the commands of `$(…)` are.
    outer: Vec<(Vec<u8>, Option<u8>)>,
}

impl Reading<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn take(&mut self, byte: u8) {
        match (byte, self.quote) {
            (b'\n', _) => self.end_all(),
            (b'\'', Some(b'\'')) | (b'"', Some(b'"')) => self.quote = None,
            (_, Some(b'\'')) => self.word.push(byte),
            (b'"' | b'\'', None) => self.quote = Some(byte),
            (b'\\', quote) => match self.next() {
                None | Some(b'\n') => {}
                Some(next) => {
                    if quote.is_some() && !b"\"\\$`".contains(&next) {
                        self.word.push(byte);
                    }
                    self.word.push(next);
                }
            },
            (b'$', _) => self.dollar(),
            (b')', None) if !self.outer.is_empty() => {
                self.end();
                (self.word, self.quote) = self.outer.pop().unwrap_or_default();
            }
            (b';' | b'|' | b'&' | b'(' | b')' | b'<' | b'>' | b'`', None) => self.end(),
            (_, None) if byte.is_ascii_whitespace() => self.end(),
            _ => self.word.push(byte),
        }
    }

    /// What follows a `$`.
    fn dollar(&mut self) {
        let name = match self.rest.first() {
            Some(b'(') => {
                self.next();
                self.outer.push((std::mem::take(&mut self.word), self.quote.take()));
                return;
            }
            Some(b'{') => {
                let end = self.rest.iter().position(|&byte| byte == b'}').unwrap_or(self.rest.len());
                let name = &self.rest[1..end.max(1)];
                self.rest = self.rest.get(end + 1..).unwrap_or_default();
                name
            }
            // Of `$0` and `$@`, the name is one character.
            Some(byte) if !byte.is_ascii_whitespace() && !b"\"'/\\".contains(byte) => {
                let count = self.rest.iter().take_while(|&&byte| is_of_identifier(byte)).count();
                let count = if byte.is_ascii_digit() { 1 } else { count.max(1) };
                let (name, rest) = self.rest.split_at(count);
                self.rest = rest;
                name
            }
            _ => return,
        };
        if name == b"HOME" {
            self.word.extend_from_slice(self.home.unwrap_or_default());
        }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn end_all(&mut self) {
        self.end();
        while let Some((word, _)) = self.outer.pop() {
            self.word = word;
            self.end();
        }
        self.quote = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_word_may_name() {
        for (text, path) in [
            ("./filter.sh %f", "./filter.sh"),
            ("'my tools/f.sh' a", "my tools/f.sh"),
            ("cd a; ./drive --x=conf/m.json", "conf/m.json"),
            ("${dir}/../x", "/../x"),
            ("ssh -Fcfg/ssh", "cfg/ssh"),
            ("ssh -F cfg/ssh", "cfg/ssh"),
            ("xargs -f@f", "f"),
            ("gcc @f", "f"),
            ("gcc @opt/f", "opt/f"),
            ("curl file://$PWD/f", "///f"),
            ("ruby -Itools -rclean", "tools"),
            ("ruby -Itools -rclean", "clean"),
            (r"sh f\ a", "f a"),
            (r"sh f\'a", "f'a"),
            (r"sh f\$a", "f$a"),
            (r#"sh "f18'a""#, "f18'a"),
            (r#"sh 'f"a'"#, "f\"a"),
            (r#"sh "f\"a""#, "f\"a"),
            (r#"sh "f\a""#, r"f\a"),
            (r#"sh "tools"/x"#, "tools/x"),
            (r#"sh to"ol"s/'x y'"#, "tools/x y"),
            (r#"sh "$PWD/my dir/x""#, "/my dir/x"),
            (r#"sh "${0%/*}/my dir/x""#, "/my dir/x"),
            (r#"sh "$(git rev-parse --show-toplevel)/my dir/x""#, "/my dir/x"),
            (r#"sh "$(dirname "$0")/my dir/x""#, "/my dir/x"),
            ("sh $HOME/x", "/home/me/x"),
            ("sh ${HOME}/x", "/home/me/x"),
            ("sh $HOMES/x", "/x"),
            ("sh $1/x", "/x"),
            ("sh ${x:-tools/x}", "tools/x"),
            ("# don't\nsh my\\ x", "my x"),
            ("sh tools\\\n/x", "tools/x"),
            ("(sh x\\ y)", "x y"),
            ("a|b\\ c", "b c"),
            (" x ", "x"),
            ("a b", "a b"),
            ("$", "$"),
            ("sh ${", "sh ${"),
        ] {
            let found = words(text.as_bytes(), Some(b"/home/me"), WORDS_MAX);
            assert!(found.paths.contains(path.as_bytes()), "{text}: {found:?}");
        }
    }

    #[test]
    fn dotted_names_may_be_modules() {
        for (text, modules) in [
            ("python3 -m tools.clean", "tools/clean"),
            ("python3 -mtools.clean", "mtools/clean tools/clean"),
            ("python3 -m a.b_2.c:main", "a/b_2/c"),
            ("a..b .c d. 1.0 e.2 f-g.h", ""),
            ("x", ""),
        ] {
            let found = words(text.as_bytes(), None, WORDS_MAX).modules;
            let found: Vec<&str> = found.iter().map(|module| std::str::from_utf8(module).unwrap()).collect();
            assert_eq!(found.join(" "), modules, "{text}");
        }
    }

    #[test]
    fn a_limited_number_of_words_counts() {
        let names: Vec<String> = (0..100).map(|number| format!("tools.f{number}")).collect();
        let text = names.join(" ");
        for max in [0, 1, 50, 1000] {
            let found = words(text.as_bytes(), None, max);
            assert!(found.paths.len() <= max && found.modules.len() <= max, "{max}");
        }
        assert!(words(text.as_bytes(), None, 1000).paths.len() >= 100);
    }
}
