//! A line of an ignore file → what the matcher takes as git takes the line. Pure.

/// A line of a `.dockerignore` as one of git's: it is matched from the root, and no slash at its ends means anything.
#[must_use]
pub fn anchored(line: &str) -> Option<String> {
    let line = line.trim();
    let (negation, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern.trim()));
    let pattern = pattern.trim_matches('/');
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    (!pattern.is_empty() && pattern != ".").then(|| format!("{negation}/{pattern}"))
}

/// A line written so that the matcher takes it as git does, which knows no braces, and reads sets in its own way. Nothing for
/// a pattern that matches nothing.
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
                // git takes a slash at the end away first, and a backslash that escapes nothing matches nothing.
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
    // Two slashes in a row are in no path. (One at the end is for directories.)
    (!written.contains("//")).then_some(written)
}

/// What follows a `[` in a pattern: the set as the matcher writes it, and what stands behind it. Nothing where it does not
/// end, or names a class that there is not.
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
                // Without its `:]` it is a `[` like any other.
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
    // A range that ends beyond ASCII is of characters here and of bytes for git.
    if has_long_range {
        return Some((format!("[{}", &text[..at]), after));
    }
    // Of what means something in a set, `]` is written first and `-` last; NUL, which is in no name, keeps others from being the
    // first. A slash is matched by no set, and yet one in a pattern ties that to its folder.
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

/// A class of characters by its name.
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
    fn a_line_is_written_with_what_it_means_to_git() {
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
    fn a_line_for_docker_begins_at_the_root() {
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
