//! `tollgate call`: any method, JSON in and JSON out.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use serde_json::Value;

use super::client::{Contract, Target, message, to_json};
use super::failure::{Failure, say};
use super::output::{Choice, Format};

/// Arguments of `call`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The method, such as RefundService/CreateRefund
    #[arg(required_unless_present = "list")]
    method: Option<String>,
    /// The request: JSON, @FILE, or - for standard input [default: standard input, or {} on a terminal]
    #[arg(short = 'd', long = "data", value_name = "JSON")]
    data: Option<String>,
    /// Name every method there is
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Choice,
}

/// Sends the request and writes every answer: indented JSON, or one line each where the method streams.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let contract = Contract::load()?;
    let mut output = arguments.output.open();
    let name = match arguments.method {
        Some(name) if !arguments.list => name,
        _ => return contract.methods().iter().try_for_each(|name| output.line(name)),
    };
    let method = contract.method(&name)?;
    let mut messages = Vec::new();
    for value in requests(arguments.data.as_deref())? {
        messages.push(message(&method, value)?);
    }
    if !method.is_client_streaming() && messages.len() != 1 {
        let many = messages.len();
        return Err(Failure::Data(format!("`{name}` takes one message, and there are {many}")));
    }
    let mut answers = arguments.target.client().await?.start(&method, messages).await?;
    while let Some(answer) = answers.message().await? {
        let answer = to_json(&answer)?;
        if method.is_server_streaming() && output.format() != Format::Json {
            output.line(&answer.to_string())?;
        } else {
            output.value(&answer)?;
        }
    }
    Ok(())
}

/// The JSON values that were given; several only make sense where the client streams.
fn requests(data: Option<&str>) -> Result<Vec<Value>, Failure> {
    let read_input = || {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map(|_| text).map_err(|error| Failure::Data(format!("standard input cannot be read: {error}")))
    };
    let text = match data {
        Some("-") => read_input()?,
        None if std::io::stdin().is_terminal() => {
            say("no request given with -d; sending {}");
            "{}".to_owned()
        }
        None => read_input()?,
        Some(given) => match given.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Data(format!("`{file}` cannot be read: {error}")))?,
            None => given.to_owned(),
        },
    };
    let text = if text.trim().is_empty() { "{}" } else { &text };
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    values.map_err(|error| Failure::Data(format!("the request is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_one_or_more_json_values() {
        assert_eq!(requests(Some("{\"a\": 1}")).unwrap(), [json!({"a": 1})]);
        assert_eq!(requests(Some("{} {}")).unwrap().len(), 2);
        assert_eq!(requests(Some("")).unwrap(), [json!({})]);
        assert!(requests(Some("{")).is_err());
        assert!(requests(Some("@/nowhere")).is_err());
    }

    #[test]
    fn a_request_can_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"id\": \"re_1\"}").unwrap();
        assert_eq!(requests(Some(&format!("@{}", file.path().display()))).unwrap(), [json!({"id": "re_1"})]);
    }
}
