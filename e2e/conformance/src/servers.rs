//! What a case may reach: an HTTP server on the loopback address, and git repositories that it serves as plain files.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    base,
    case::{Build, Commit, HttpSpec},
    tree,
};

/// A running server of one case; it ends when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    /// Placeholders of the case and what to put in their place.
    pub(crate) substitutions: Vec<(String, String)>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Starts the server that the case asks for, if it does; files go below `www`.
pub(crate) fn start(case: &Build, www: &Path) -> Result<Option<Server>> {
    if case.http.is_empty() && case.git.is_empty() {
        return Ok(None);
    }
    fs::create_dir_all(www)?;
    let mut substitutions = Vec::new();
    for (name, commits) in &case.git {
        for (at, id) in make_repository(&www.join(name), commits)?.into_iter().enumerate() {
            substitutions.push((format!("@COMMIT:{name}:{at}@"), id));
        }
    }
    let answers = case
        .http
        .iter()
        .map(|(path, spec)| Ok((path.clone(), answer(spec)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to listen on the loopback address")?;
    let address = listener.local_addr()?;
    substitutions.push(("@HTTP@".to_owned(), format!("http://{address}")));
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, answers, root) = (Arc::clone(&stop), Arc::new(answers), www.to_owned());
    let accepting = thread::spawn(move || {
        for stream in listener.incoming() {
            if seen.load(Ordering::SeqCst) {
                break;
            }
            let Ok(stream) = stream else { continue };
            let (answers, root) = (Arc::clone(&answers), root.clone());
            // A client that goes away in mid-answer is no concern of the case's.
            thread::spawn(move || drop(serve(stream, &answers, &root)));
        }
    });
    Ok(Some(Server {
        address,
        stop,
        accepting: Some(accepting),
        substitutions,
    }))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes `incoming`, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

fn answer(spec: &HttpSpec) -> Result<Answer> {
    Ok(Answer {
        status: spec.status.unwrap_or(200),
        headers: spec.headers.clone(),
        body: tree::bytes(&spec.body)?,
    })
}

/// Answers one request and closes the connection.
fn serve(stream: TcpStream, answers: &BTreeMap<String, Answer>, root: &Path) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (
        words.next().unwrap_or_default().to_owned(),
        words.next().unwrap_or_default().to_owned(),
    );
    let mut if_none_match = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("if-none-match")
        {
            if_none_match = Some(value.trim().to_owned());
        }
    }
    let path = target.split('?').next().unwrap_or_default();
    let (status, headers, body) = match answers.get(path) {
        Some(answer) => {
            let tag = format!("\"{}\"", &base::digest(&answer.body)[7..23]);
            let mut headers = vec![("ETag".to_owned(), tag.clone())];
            if if_none_match.as_deref() == Some(tag.as_str()) {
                (304, headers, Vec::new())
            } else {
                headers.extend(answer.headers.clone());
                (answer.status, headers, answer.body.clone())
            }
        }
        None => match inside(root, path).map(fs::read) {
            Some(Ok(body)) => (200, Vec::new(), body),
            _ => (404, Vec::new(), b"not found\n".to_vec()),
        },
    };
    let mut head = format!("HTTP/1.1 {status} Answer\r\nConnection: close\r\n");
    if status != 304 {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// The file that a path of a request names, unless it would leave the root.
fn inside(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| root.join(relative))
}

/// Makes a repository with the given commits; gives their ids. It can be cloned over plain HTTP.
fn make_repository(dir: &Path, commits: &[Commit]) -> Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    let git = |args: &[&str]| -> Result<String> {
        let date = "2020-01-01T00:00:00Z";
        let output = Command::new("git")
            .args(args)
            .current_dir(dir)
            .envs([
                ("GIT_AUTHOR_NAME", "t"),
                ("GIT_AUTHOR_EMAIL", "t@t"),
                ("GIT_AUTHOR_DATE", date),
            ])
            .envs([
                ("GIT_COMMITTER_NAME", "t"),
                ("GIT_COMMITTER_EMAIL", "t@t"),
                ("GIT_COMMITTER_DATE", date),
            ])
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .env("HOME", dir)
            .output()
            .context("failed to start git")?;
        if !output.status.success() {
            bail!(
                "git {} failed: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    git(&["init", "-q", "-b", "main"])?;
    let mut ids = Vec::new();
    for commit in commits {
        tree::write(dir, &commit.files)?;
        git(&["add", "-A"])?;
        git(&["commit", "-q", "-m", "c"])?;
        ids.push(git(&["rev-parse", "HEAD"])?);
        for tag in &commit.tags {
            git(&["tag", tag])?;
        }
        for branch in &commit.branches {
            git(&["branch", branch])?;
        }
    }
    git(&["update-server-info"])?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::case::Case;

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn answers_carry_a_tag_and_are_not_sent_twice() {
        let dir = tempfile::tempdir().unwrap();
        let case = Case::parse(r#"{"id": "a", "http": {"/x": {"content": "hi", "headers": {"X-A": "1"}}}}"#)
            .unwrap();
        let server = start(&case.first, dir.path()).unwrap().unwrap();
        let first = ask(&server, "GET /x?q HTTP/1.1\r\n\r\n");
        assert!(
            first.starts_with("HTTP/1.1 200") && first.ends_with("\r\n\r\nhi") && first.contains("X-A: 1")
        );
        let tag = first
            .lines()
            .find_map(|line| line.strip_prefix("ETag: "))
            .unwrap();
        let second = ask(
            &server,
            &format!("GET /x HTTP/1.1\r\nIf-None-Match: {tag}\r\n\r\n"),
        );
        assert!(second.starts_with("HTTP/1.1 304"), "{second}");
        assert!(ask(&server, "GET /../secret HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn a_repository_is_served_as_files() {
        let dir = tempfile::tempdir().unwrap();
        let line =
            r#"{"id": "a", "git": {"r": [{"files": {"f": "1"}, "tags": ["v1"]}, {"files": {"f": "2"}}]}}"#;
        let server = start(&Case::parse(line).unwrap().first, dir.path())
            .unwrap()
            .unwrap();
        let refs = ask(
            &server,
            "GET /r/.git/info/refs?service=git-upload-pack HTTP/1.1\r\n\r\n",
        );
        let first = &server
            .substitutions
            .iter()
            .find(|(name, _)| name == "@COMMIT:r:0@")
            .unwrap()
            .1;
        assert!(refs.contains(&format!("{first}\trefs/tags/v1")), "{refs}");
    }
}
