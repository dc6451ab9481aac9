//! `latchkey version compare`: which of two versions is the newer one, by the order that blocks are decided with.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use policy::{Product, ProductVersion, VersionScheme};

use crate::output;

/// Far longer than two versions; what is longer is no pair.
const LONGEST_LINE: u64 = 4096;
/// Of a list full of nonsense, so many lines are complained about.
const MOST_COMPLAINTS: u64 = 20;

const EXAMPLES: &str = "\
Examples:
  A beta is older than its release, so this prints -1:
    latchkey version compare 2026.11.0b3 2026.11.0

  Another product, which counts like semantic versions:
    latchkey version compare --product zigbee2mqtt 1.40.0-rc.1 1.40.0

  Many pairs, one a line, one answer a line:
    printf '2023.9 2023.10\\n2023.9.1 2023.9.0\\n' | latchkey version compare --stdin";

/// Tools about versions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct VersionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VersionCommand,
}

/// Tools about versions.
#[derive(Debug, Subcommand)]
pub enum VersionCommand {
    /// Print -1, 0 or 1: the first version is older, the same, or newer
    Compare(CompareArgs),
}

/// Two versions, or pairs on standard input.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// A version
    #[arg(value_name = "A", required_unless_present = "stdin", requires = "right")]
    pub left: Option<String>,
    /// Another version
    #[arg(value_name = "B")]
    pub right: Option<String>,
    /// What the versions are of; it decides how they are ordered
    #[arg(long, value_name = "PRODUCT", default_value = policy::DEFAULT_PRODUCT)]
    pub product: Product,
    /// Read pairs, one a line, separated by a tab or blanks; where one cannot be read the answer is `unreadable`
    #[arg(long, conflicts_with_all = ["left", "right"])]
    pub stdin: bool,
}

/// The command.
pub fn run(args: &VersionArgs) -> ExitCode {
    let VersionCommand::Compare(args) = &args.command;
    let scheme = args.product.scheme();
    let (Some(left), Some(right)) = (&args.left, &args.right) else {
        return match compare_lines(io::stdin().lock(), io::stdout().lock(), scheme) {
            Ok(0) => ExitCode::SUCCESS,
            Ok(unreadable) => output::fail(&format!("{unreadable} of the pairs could not be read")),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => output::fail(&error.to_string()),
        };
    };
    match compare(left, right, scheme) {
        Ok(order) => output::print(&format!("{order}\n")),
        Err(what) => output::fail(&what),
    }
}

fn compare(left: &str, right: &str, scheme: VersionScheme) -> Result<i8, String> {
    let read = |which, text| {
        ProductVersion::parse(text, scheme).map_err(|error| format!("the {which} version, {error}"))
    };
    Ok(read("first", left)?.cmp(&read("second", right)?) as i8)
}

/// Answers each line with a line; how many could not be read.
fn compare_lines(pairs: impl Read, answers: impl Write, scheme: VersionScheme) -> io::Result<u64> {
    let mut pairs = BufReader::with_capacity(64 * 1024, pairs);
    let mut answers = io::BufWriter::with_capacity(64 * 1024, answers);
    let (mut line, mut number, mut unreadable) = (Vec::new(), 0_u64, 0);
    loop {
        // Who asks one by one and waits gets each answer at once.
        if pairs.buffer().is_empty() {
            answers.flush()?;
        }
        line.clear();
        if pairs.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            answers.flush()?;
            return Ok(unreadable);
        }
        number += 1;
        let whole = line.ends_with(b"\n") || (line.len() as u64) < LONGEST_LINE;
        if !whole {
            pairs.skip_until(b'\n')?;
        }
        let answer = if whole {
            compare_pair(&String::from_utf8_lossy(&line), scheme)
        } else {
            Err(format!("the line is longer than {LONGEST_LINE} bytes"))
        };
        match answer {
            Ok(order) => writeln!(answers, "{order}")?,
            Err(what) => {
                writeln!(answers, "unreadable")?;
                unreadable += 1;
                if unreadable <= MOST_COMPLAINTS {
                    output::complain(&format!("line {number}: {what}"));
                }
            }
        }
    }
}

fn compare_pair(line: &str, scheme: VersionScheme) -> Result<i8, String> {
    let line = line.trim_end_matches(['\n', '\r']);
    let mut texts: Box<dyn Iterator<Item = &str>> =
        if line.contains('\t') { Box::new(line.split('\t')) } else { Box::new(line.split_whitespace()) };
    match (texts.next(), texts.next(), texts.next()) {
        (Some(left), Some(right), None) => compare(left, right, scheme),
        _ => Err("expected two versions with a tab or blanks between them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(pairs: &str) -> (String, u64) {
        let mut answers = Vec::new();
        let unreadable = compare_lines(pairs.as_bytes(), &mut answers, VersionScheme::Calendar).unwrap();
        (String::from_utf8(answers).unwrap(), unreadable)
    }

    #[test]
    fn each_line_has_its_answer() {
        let (said, unreadable) = answers(
            "2023.9.0b3 2023.9.0\n2023.9\t2023.9.0\r\n 2023.10   2023.9 \n\n2023.9\n2023.9 2023.9 2023.9\n\
             2023.9.0\t\nlatest 2023.9\n2023.9.1 2023.9.2",
        );
        let expected = "-1 0 1 unreadable unreadable unreadable unreadable unreadable -1 ";
        assert_eq!(said.replace('\n', " "), expected);
        assert_eq!(unreadable, 5);
    }

    #[test]
    fn an_endless_line_is_one_unreadable_pair() {
        let endless = "2023.9 ".repeat(100_000);
        let (said, unreadable) = answers(&format!("{endless}\n2023.9 2023.8\n"));
        assert_eq!((said.as_str(), unreadable), ("unreadable\n1\n", 1));
    }

    #[test]
    fn the_error_says_which_version_and_why() {
        let error = compare("2023.9", "latest", VersionScheme::Calendar).unwrap_err();
        assert!(
            error.starts_with("the second version, \"latest\" cannot be read as a calendar version"),
            "{error}"
        );
    }
}
