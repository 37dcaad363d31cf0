//! One pass over one word.
//!
//! Two results come out of it: the expanded text, and the text split into words. The second differs in that blanks
//! which stand unquoted in the source or come from a variable end a word.

use std::collections::BTreeSet;

use super::{Env, Lexer, MAX_DEPTH, MAX_LENGTH, pattern};

/// What went wrong, in words.
type Reason = String;

/// A position in a word, and what has been learnt on the way to it.
pub(super) struct Scan<'a> {
    lexer: Lexer,
    chars: Vec<char>,
    at: usize,
    env: &'a dyn Env,
    raw_escapes: bool,
    /// Inside the pattern of `${a#pattern}`: a quoted backslash has to stay literal when the pattern is compiled.
    in_pattern: bool,
    depth: usize,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

/// Collects words while text is added.
#[derive(Default)]
struct Splitter {
    word: String,
    words: Vec<String>,
    in_word: bool,
}

impl Splitter {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_raw(c);
        } else if self.in_word && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    fn push_raw(&mut self, c: char) {
        self.word.push(c);
        self.in_word = true;
    }

    fn push_str(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    fn push_str_raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(lexer: Lexer, word: &str, env: &'a dyn Env) -> Self {
        Self {
            lexer,
            chars: word.chars().collect(),
            at: 0,
            env,
            raw_escapes: lexer.raw_escapes,
            in_pattern: false,
            depth: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    /// Reads the whole word.
    pub(super) fn all(&mut self) -> Result<(String, Vec<String>), Reason> {
        self.until(None)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Reads up to `stop`, which is consumed, or to the end when there is none.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Reason> {
        let mut text = String::new();
        let mut words = Splitter::default();
        let quotes = !self.lexer.skip_process_quotes;
        while let Some(c) = self.peek() {
            if text.len() > MAX_LENGTH {
                return Err(too_long());
            }
            if Some(c) == stop {
                self.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.push_str(&value);
                    text.push_str(&value);
                }
                '\'' | '"' if quotes => {
                    let value = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    words.push_str_raw(&value);
                    text.push_str(&value);
                }
                '<' => {
                    let value = self.less_than();
                    words.push_str_raw(&value);
                    text.push_str(&value);
                }
                _ => {
                    self.next();
                    if c != self.lexer.escape {
                        words.push(c);
                        text.push(c);
                        continue;
                    }
                    if self.raw_escapes {
                        words.push_raw(c);
                        text.push(c);
                    }
                    // An escape at the very end escapes nothing and is dropped.
                    let Some(escaped) = self.next() else { break };
                    words.push_raw(escaped);
                    text.push(escaped);
                }
            }
        }
        if text.len() > MAX_LENGTH {
            return Err(too_long());
        }
        match stop {
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
            None => Ok((text, words.finish())),
        }
    }

    /// `<` stands for itself; blanks after `<<` stay with it, so that `<< EOF` is one word.
    fn less_than(&mut self) -> String {
        self.next();
        let mut text = String::from("<");
        if self.peek() != Some('<') {
            return text;
        }
        self.next();
        text.push('<');
        while let Some(blank) = self.peek().filter(|c| matches!(c, ' ' | '\t' | '\r')) {
            self.next();
            text.push(blank);
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote".to_owned(),
                    );
                }
                Some('\'') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some(c) => {
                    self.next();
                    self.literal(&mut text, c);
                }
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            let Some(c) = self.peek() else {
                return Err("unexpected end of statement while looking for matching double-quote".to_owned());
            };
            if text.len() > MAX_LENGTH {
                return Err(too_long());
            }
            match c {
                '"' => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                _ => {
                    self.next();
                    if c != self.lexer.escape {
                        self.literal(&mut text, c);
                        continue;
                    }
                    // Only these can be escaped; before anything else the escape is text.
                    let escaped = self.peek().filter(|next| matches!(next, '"' | '$') || *next == c);
                    if self.in_pattern {
                        self.literal(&mut text, escaped.unwrap_or(c));
                        self.at += usize::from(escaped.is_some());
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(c);
                        if self.peek().is_some() && escaped.is_none() {
                            continue;
                        }
                    }
                    match escaped {
                        Some(escaped) => {
                            self.next();
                            text.push(escaped);
                        }
                        None if self.peek().is_some() => text.push(c),
                        None => {}
                    }
                }
            }
        }
    }

    /// Takes the quote itself.
    fn quote(&mut self, text: &mut String) {
        if let Some(c) = self.next()
            && self.lexer.raw_quotes
        {
            text.push(c);
        }
    }

    /// A quoted character, which stands for itself.
    fn literal(&self, text: &mut String, c: char) {
        if self.in_pattern && c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }

    /// `$name` or `${…}`.
    fn dollar(&mut self) -> Result<String, Reason> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset_env => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(unclosed()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        if self.depth >= MAX_DEPTH {
            return Err(format!("substitutions are nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let result = self.braces();
        self.depth -= 1;
        result
    }

    /// What follows `${`.
    fn braces(&mut self) -> Result<String, Reason> {
        let name = self.name();
        let Some(first) = self.next() else {
            return Err(unclosed());
        };
        let mut modifier = String::from(first);
        let mut operator = first;
        let mut empty_is_unset = false;
        match first {
            '}' => {
                return Ok(match self.value(&name) {
                    Some(value) => value,
                    None if self.lexer.skip_unset_env => format!("${{{name}}}"),
                    None => String::new(),
                });
            }
            ':' => {
                empty_is_unset = true;
                let Some(second) = self.next() else {
                    return Err(unclosed());
                };
                modifier.push(second);
                operator = second;
            }
            '+' | '-' | '?' | '#' | '%' => {}
            '/' => return self.replace(&name),
            _ => return Err(unsupported(&modifier)),
        }

        let is_pattern = matches!(operator, '#' | '%');
        let word = self
            .inner('}', is_pattern, is_pattern)
            .map_err(|reason| match self.peek() {
                None => unclosed(),
                Some(_) => reason,
            })?;
        let value = self.value(&name);
        if self.lexer.skip_unset_env && value.is_none() {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let usable = value
            .as_ref()
            .is_some_and(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' | '?' if usable => Ok(value.unwrap_or_default()),
            '-' => Ok(word),
            '+' => Ok(if usable { word } else { String::new() }),
            '?' if !word.is_empty() => Err(format!("{name}: {word}")),
            '?' if value.is_some() => Err(format!("{name}: is not allowed to be empty")),
            '?' => Err(format!("{name}: is not allowed to be unset")),
            // `${a:#x}` means nothing: a pattern has no use for "empty counts as unset".
            '#' | '%' if empty_is_unset => Err(unsupported(&modifier)),
            '#' | '%' => {
                let (pattern, longest) = match word.strip_prefix(operator) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                let value = value.unwrap_or_default();
                if operator == '#' {
                    pattern::trim_prefix(pattern, &value, longest)
                } else {
                    pattern::trim_suffix(pattern, &value, longest)
                }
            }
            _ => Err(unsupported(&modifier)),
        }
    }

    /// `${name/pattern/replacement}`, `${name//pattern/replacement}`.
    fn replace(&mut self, name: &str) -> Result<String, Reason> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let wanted = self.inner('/', true, true).map_err(|reason| match self.peek() {
            None => "syntax error: missing '/' in ${}".to_owned(),
            Some(_) => reason,
        })?;
        let replacement = self.inner('}', true, false).map_err(|reason| match self.peek() {
            None => unclosed(),
            Some(_) => reason,
        })?;
        let value = self.value(name);
        if self.lexer.skip_unset_env && value.is_none() {
            return Ok(format!("${{{name}/{wanted}/{replacement}}}"));
        }
        pattern::replace(&wanted, &value.unwrap_or_default(), &replacement, all)
    }

    /// The word inside `${…}`, up to `stop`.
    fn inner(&mut self, stop: char, raw_escapes: bool, in_pattern: bool) -> Result<String, Reason> {
        let saved = (self.raw_escapes, self.in_pattern);
        (self.raw_escapes, self.in_pattern) = (raw_escapes, in_pattern);
        let result = self.until(Some(stop));
        (self.raw_escapes, self.in_pattern) = saved;
        result.map(|(text, _)| text)
    }

    /// A variable's name: letters, digits and `_`, or all digits, or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(c);
                    self.next();
                }
                return name;
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.next();
                return c.to_string();
            }
            _ => {}
        }
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.next();
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name).map(str::to_owned);
        let set = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        set.insert(name.to_owned());
        value
    }
}

fn unclosed() -> Reason {
    "syntax error: missing '}'".to_owned()
}

fn unsupported(modifier: &str) -> Reason {
    format!("unsupported modifier ({modifier}) in substitution")
}

fn too_long() -> Reason {
    format!("the result is longer than {MAX_LENGTH} bytes")
}
