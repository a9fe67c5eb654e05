//! Rewrites a line of an ignore file so that the `ignore` crate takes it as git does. Pure: no I/O.

/// Rewrites a line of a `.dockerignore` as one for git: it matches from the root, and slashes at its ends
/// have no meaning.
#[must_use]
pub fn anchored(line: &str) -> Option<String> {
    let line = line.trim();
    let (negation, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern.trim()));
    let pattern = pattern.trim_matches('/');
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    (!pattern.is_empty() && pattern != ".").then(|| format!("{negation}/{pattern}"))
}

/// Rewrites a line so that the matcher gives it git's meaning: git has no braces, and reads sets in its own
/// way. `None` for a pattern that matches nothing.
#[must_use]
pub fn with_gits_meaning(line: &str) -> Option<String> {
    let mut written = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                // git removes a slash at the end first, and then a backslash that escapes nothing matches
                // nothing.
                if escaped == '/' && rest.trim_end().is_empty() {
                    return None;
                }
                written.extend(['\\', escaped]);
            }
            '{' | '}' => written.extend(['\\', first]),
            '[' => {
                let (set, after) = set_of(rest)?;
                written.push_str(&set);
                rest = after;
            }
            other => written.push(other),
        }
    }
    // No path has two slashes in a row. (One at the end means that only folders match.)
    (!written.contains("//")).then_some(written)
}

/// Parses a set after its `[`. Returns the set as the matcher writes it, and the rest of the pattern. `None`
/// if the set has no end, or names a class that does not exist.
fn set_of(text: &str) -> Option<(String, &str)> {
    let bytes = text.as_bytes();
    let is_negated = matches!(bytes.first(), Some(b'!' | b'^'));
    let mut at = usize::from(is_negated);
    let begin = at;
    let mut members = [false; 128];
    let mut others = String::new();
    let mut has_long_range = false;
    let mut before: Option<u8> = None;
    loop {
        let byte = *bytes.get(at)?;
        at += 1;
        match byte {
            b']' if at - 1 > begin => break,
            b'[' if bytes.get(at) == Some(&b':') => {
                let name_end = at + 1 + text[at + 1..].find(']')?;
                let name = text[at + 1..name_end].strip_suffix(':');
                // Without its `:]` it is an ordinary `[`.
                let Some(name) = name else {
                    members[usize::from(byte)] = true;
                    before = Some(byte);
                    continue;
                };
                let class = class_of(name)?;
                (0..128_u8).filter(class).for_each(|member| members[usize::from(member)] = true);
                at = name_end + 1;
                before = None;
            }
            b'-' if before.is_some() && bytes.get(at).is_some_and(|&next| next != b']') => {
                let mut last = bytes[at];
                at += 1;
                if last == b'\\' {
                    last = *bytes.get(at)?;
                    at += 1;
                }
                has_long_range |= !last.is_ascii();
                let first = before.take()?;
                (first..=last).filter(u8::is_ascii).for_each(|member| members[usize::from(member)] = true);
            }
            byte => {
                if byte == b'\\' {
                    at += 1;
                }
                let member = text.get(at - 1..)?.chars().next()?;
                at += member.len_utf8() - 1;
                before = u8::try_from(member).ok().filter(u8::is_ascii);
                match before {
                    Some(member) => members[usize::from(member)] = true,
                    None => others.push(member),
                }
            }
        }
    }
    let after = &text[at..];
    // A range that ends beyond ASCII is of characters for the matcher and of bytes for git.
    if has_long_range {
        return Some((format!("[{}", &text[..at]), after));
    }
    // Some members have a meaning by their position: `]` is written first and `-` last. NUL, which no name
    // contains, keeps any other member from being first. A set never matches a slash, but a slash in a
    // pattern makes the pattern match from its folder.
    let mut set = String::from(if is_negated { "[!" } else { "[" });
    let is_member = |member: u8| members[usize::from(member)];
    set.extend(is_member(b']').then_some(']'));
    set.push('\0');
    set.extend(text[..at].contains('/').then_some('/'));
    let plain =
        (1..128_u8).filter(|&member| is_member(member) && !matches!(member, b']' | b'-' | b'/' | b'['));
    set.extend(plain.map(char::from));
    set.push_str(&others);
    set.extend(is_member(b'[').then_some('['));
    set.extend(is_member(b'-').then_some('-'));
    set.push(']');
    Some((set, after))
}

/// The members of a character class, by its name.
fn class_of(name: &str) -> Option<fn(&u8) -> bool> {
    Some(match name {
        "alnum" => u8::is_ascii_alphanumeric,
        "alpha" => u8::is_ascii_alphabetic,
        "blank" => |byte| matches!(byte, b' ' | b'\t'),
        "cntrl" => u8::is_ascii_control,
        "digit" => u8::is_ascii_digit,
        "graph" => u8::is_ascii_graphic,
        "lower" => u8::is_ascii_lowercase,
        "print" => |byte| matches!(byte, b' '..=b'~'),
        "punct" => u8::is_ascii_punctuation,
        "space" => |byte| byte.is_ascii_whitespace() || *byte == 0x0b,
        "upper" => u8::is_ascii_uppercase,
        "xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_rewritten_with_gits_meaning() {
        for (line, written) in [
            ("*.log", Some("*.log")),
            ("!/a/**/b/", Some("!/a/**/b/")),
            ("{a,b}", Some(r"\{a,b\}")),
            (r"\{a", Some(r"\{a")),
            ("trailing\\ ", Some("trailing\\ ")),
            ("[ab]", Some("[\u{0}ab]")),
            ("[^]-]x", Some("[!]\u{0}-]x")),
            (r"[\]a]", Some("[]\u{0}a]")),
            (r"[a\-c]", Some("[\u{0}ac-]")),
            ("[a-c!^]", Some("[\u{0}!^abc]")),
            ("[[:digit:]_]", Some("[\u{0}0123456789_]")),
            ("[.-0]", Some("[\u{0}.0]")),
            ("[a/]", Some("[\u{0}/a]")),
            ("[é[]", Some("[\u{0}é[]")),
            // Nothing that is there can match these.
            ("[a", None),
            ("[", None),
            ("[[:word:]]", None),
            ("a\\", None),
            ("a//b", None),
            ("**//", None),
        ] {
            assert_eq!(with_gits_meaning(line).as_deref(), written, "{line}");
        }
    }

    #[test]
    fn a_dockerignore_line_matches_from_the_root() {
        for (line, written) in [
            ("node_modules", Some("/node_modules")),
            ("/a/", Some("/a")),
            (" ! ./a/b ", Some("!/a/b")),
            ("**/*.log", Some("/**/*.log")),
            (".", None),
            ("/", None),
            ("!", None),
        ] {
            assert_eq!(anchored(line).as_deref(), written, "{line}");
        }
    }
}
