//! What parameters an endpoint takes, written as a short text, and the check and typing of a request against it.
//!
//! A shape is a list of fields: `name` a string, `name:40` with at most 40 characters, `:int`, `:positive`, `:bool`,
//! `:list` of strings, `:metadata`, `:any`, `:range` (an instant, or bounds on one), `:a|b` one of the words,
//! `name{..}` an object, `name[..]` a list of objects; `!` behind the name makes it required. An empty value becomes
//! null, which unsets; a required one may not be empty.

use serde_json::Value;

use super::error::Error;
use super::object::Object;

/// Metadata limits: <https://docs.stripe.com/api/metadata>.
const METADATA_KEYS_MAX: usize = 50;
const METADATA_KEY_CHARS_MAX: usize = 40;
const METADATA_VALUE_CHARS_MAX: usize = 500;

struct Field<'a> {
    name: &'a str,
    required: bool,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Text(usize),
    Int { min: i64 },
    Bool,
    Words(&'a str),
    List,
    Range,
    Metadata,
    Any,
    Object(Vec<Field<'a>>),
    Objects(Vec<Field<'a>>),
}

/// Checks the decoded form against the shape and gives its values their types.
pub(super) fn check(shape: &str, form: &Object) -> Result<Object, Error> {
    let mut rest = shape;
    object(&fields(&mut rest), form, "")
}

fn fields<'a>(rest: &mut &'a str) -> Vec<Field<'a>> {
    let mut fields = Vec::new();
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() {
            return fields;
        }
        if let Some(after) = rest.strip_prefix(['}', ']']) {
            *rest = after;
            return fields;
        }
        let end = rest.find([' ', ':', '{', '[', '}', ']', '!', '\n']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let required = after.starts_with('!');
        *rest = after.strip_prefix('!').unwrap_or(after);
        fields.push(Field { name, required, kind: kind(rest) });
    }
}

fn kind<'a>(rest: &mut &'a str) -> Kind<'a> {
    if let Some(after) = rest.strip_prefix('{') {
        *rest = after;
        return Kind::Object(fields(rest));
    }
    if let Some(after) = rest.strip_prefix('[') {
        *rest = after;
        return Kind::Objects(fields(rest));
    }
    let Some(after) = rest.strip_prefix(':') else { return Kind::Text(usize::MAX) };
    let end = after.find([' ', '}', ']', '\n']).unwrap_or(after.len());
    let (word, after) = after.split_at(end);
    *rest = after;
    match word {
        "int" => Kind::Int { min: i64::MIN },
        "positive" => Kind::Int { min: 1 },
        "bool" => Kind::Bool,
        "list" => Kind::List,
        "range" => Kind::Range,
        "metadata" => Kind::Metadata,
        "any" => Kind::Any,
        word => word.parse().map_or(Kind::Words(word), Kind::Text),
    }
}

fn object(fields: &[Field<'_>], form: &Object, path: &str) -> Result<Object, Error> {
    let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}[{name}]") };
    let known = |name: &str| fields.iter().any(|field| field.name == name);
    let unknown: Vec<_> = form.keys().filter(|name| !known(name)).map(|name| full(name)).collect();
    if let Some(first) = unknown.first() {
        let plural = if unknown.len() > 1 { "s" } else { "" };
        return Err(Error::invalid(format!("Received unknown parameter{plural}: {}", unknown.join(", ")))
            .code("parameter_unknown")
            .param(first));
    }
    let mut typed = Object::new();
    for field in fields {
        let param = full(field.name);
        match form.get(field.name) {
            None if field.required => return Err(Error::required(&param)),
            None => {}
            Some(value) => {
                let value = coerce(field, value, &param)?;
                if field.required && value.is_null() {
                    let message = format!("You passed an empty string for '{param}', which is required.");
                    return Err(Error::invalid(message).code("parameter_invalid_empty").param(&param));
                }
                typed.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(typed)
}

fn coerce(field: &Field<'_>, value: &Value, param: &str) -> Result<Value, Error> {
    match (&field.kind, value) {
        (Kind::Any, value) => Ok(value.clone()),
        (Kind::Int { .. }, Value::String(text)) if text.is_empty() => Err(invalid_integer(param, text)),
        (_, Value::String(text)) if text.is_empty() => Ok(Value::Null),
        (Kind::Text(max), Value::String(text)) => {
            let length = text.chars().count();
            if length <= *max {
                return Ok(value.clone());
            }
            let message =
                format!("Invalid string: {length} characters given; must be at most {max} characters");
            Err(Error::invalid(message).param(param))
        }
        (Kind::Int { min }, Value::String(text)) => {
            let number: i64 = text.parse().map_err(|_| invalid_integer(param, text))?;
            if number < *min {
                let message = format!("This value must be greater than or equal to {min}.");
                return Err(Error::integer(param, message));
            }
            Ok(Value::from(number))
        }
        (Kind::Bool, Value::String(text)) => match text.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(Error::invalid(format!("Invalid boolean: {text}")).param(param)),
        },
        (Kind::Words(words), Value::String(text)) => {
            if words.split('|').any(|word| word == text) {
                return Ok(value.clone());
            }
            let message = format!("Invalid {param}: must be one of {}", words.replace('|', ", "));
            Err(Error::invalid(message).param(param))
        }
        (Kind::Range, Value::String(text)) => {
            text.parse::<i64>().map(Value::from).map_err(|_| invalid_integer(param, text))
        }
        (Kind::Range, Value::Object(form)) => {
            let mut bounds = "gt:int gte:int lt:int lte:int";
            object(&fields(&mut bounds), form, param).map(Value::Object)
        }
        (Kind::Metadata, Value::Object(form)) => metadata(form, param),
        (Kind::List, Value::Object(form)) => {
            let items: Vec<_> = form.values().cloned().collect();
            if items.iter().all(Value::is_string) {
                return Ok(Value::Array(items));
            }
            Err(Error::invalid("Invalid array").param(param))
        }
        (Kind::Object(fields), Value::Object(form)) => object(fields, form, param).map(Value::Object),
        (Kind::Objects(fields), Value::Object(form)) => {
            let element = |(at, value): (&String, &Value)| match value {
                Value::Object(form) => object(fields, form, &format!("{param}[{at}]")).map(Value::Object),
                _ => Err(Error::invalid("Invalid object").param(param)),
            };
            form.iter().map(element).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Kind::List | Kind::Objects(_), _) => Err(Error::invalid("Invalid array").param(param)),
        (Kind::Object(_) | Kind::Metadata, _) => Err(Error::invalid("Invalid object").param(param)),
        _ => Err(Error::invalid(format!("Invalid value for {param}: a nested object is not accepted"))
            .param(param)),
    }
}

fn invalid_integer(param: &str, text: &str) -> Error {
    Error::integer(param, format!("Invalid integer: {text}"))
}

fn metadata(form: &Object, param: &str) -> Result<Value, Error> {
    let mut pairs = Object::new();
    for (key, value) in form {
        let at = format!("{param}[{key}]");
        let Value::String(text) = value else {
            return Err(Error::invalid("Metadata values must be strings.").param(&at));
        };
        if key.chars().count() > METADATA_KEY_CHARS_MAX {
            let message = format!("Metadata keys have at most {METADATA_KEY_CHARS_MAX} characters.");
            return Err(Error::invalid(message).param(&at));
        }
        if text.chars().count() > METADATA_VALUE_CHARS_MAX {
            let message = format!("Metadata values have at most {METADATA_VALUE_CHARS_MAX} characters.");
            return Err(Error::invalid(message).param(&at));
        }
        pairs.insert(key.clone(), if text.is_empty() { Value::Null } else { value.clone() });
    }
    if pairs.len() > METADATA_KEYS_MAX {
        let message = format!("Metadata holds at most {METADATA_KEYS_MAX} keys.");
        return Err(Error::invalid(message).param(param));
    }
    Ok(Value::Object(pairs))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;
    use crate::sandbox::form;
    use crate::sandbox::object::{Object, text};

    fn run(shape: &str, encoded: &str) -> Result<Object, super::Error> {
        check(shape, &form::tree(&form::pairs(encoded)?)?)
    }

    #[test]
    fn values_get_the_types_the_shape_names() {
        let shape =
            "amount!:positive on:bool why:a|b l:list created:range metadata:metadata o{x y{z:int}} p[k v]";
        let typed = run(
            shape,
            "amount=5&on=true&why=b&l[0]=x&created[gte]=7&metadata[0]=m&metadata[k]=&o[y][z]=-3&o[x]=&p[0][k]=1",
        )
        .unwrap();
        assert_eq!(
            Value::Object(typed),
            json!({
                "amount": 5, "on": true, "why": "b", "l": ["x"], "created": {"gte": 7},
                "metadata": {"0": "m", "k": null}, "o": {"x": null, "y": {"z": -3}}, "p": [{"k": "1"}],
            })
        );
    }

    #[test]
    fn each_fault_names_its_parameter() {
        let shape = "amount!:positive name:3 why:a|b o{x} l:list p[k]";
        for (encoded, code, param) in [
            ("", "parameter_missing", "amount"),
            ("amount=0", "parameter_invalid_integer", "amount"),
            ("amount=x", "parameter_invalid_integer", "amount"),
            ("amount=1&zz=1", "parameter_unknown", "zz"),
            ("amount=1&o[zz]=1", "parameter_unknown", "o[zz]"),
            ("amount=1&p[0][zz]=1", "parameter_unknown", "p[0][zz]"),
            ("amount=1&name=long", "", "name"),
            ("amount=1&why=c", "", "why"),
            ("amount=1&o=1", "", "o"),
            ("amount=1&l=1", "", "l"),
        ] {
            let error = run(shape, encoded).unwrap_err();
            assert_eq!(
                (error.status, text(&error.body, "code"), text(&error.body, "param")),
                (400, code, param)
            );
            assert!(!error.saved);
        }
    }
}
