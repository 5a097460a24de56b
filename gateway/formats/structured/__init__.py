"""JSON that a model wrote as text: found, repaired, and checked against the client's schema.

`recovery`: finds JSON values in text; `schema`: checks a client's schema and validates values with it;
`fitting`: changes a value where a schema leaves no doubt what was meant; `reference`: follows `$ref`;
`calls`: finds function calls in text.

Rule: Nothing is evaluated, and the work is bounded by constants, whatever the client or the model sends.
"""
