"""The functions that a request offers: their names, their schemas, and which call is demanded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.errors import BadRequest, UnsupportedParameter
from gateway.formats.openai import ChatRequest, FunctionDefinition
from gateway.formats.structured.fitting import fitted

if TYPE_CHECKING:
    from gateway.formats.structured.schema import JsonSchema


class OfferedFunctions:
    """The functions of one request. Only the named one, if `tool_choice` names one.

    Raises `UnsupportedParameter` for a tool that is not a function, `BadRequest` for an unknown name.
    """

    def __init__(self, request: ChatRequest) -> None:
        self.required = request.tool_mode == "required"
        self.named = request.named_tool
        self.one_only = request.parallel_tool_calls is False or request.legacy_functions
        self._member = "functions" if request.legacy_functions else "tools"
        found = {}
        for place, tool in enumerate(request.offered):
            if tool.type != "function" or tool.function is None:
                raise UnsupportedParameter(
                    f"This model takes functions only, not a tool of type {tool.type[:32]!r}.",
                    param=f"tools[{place}].type",
                )
            found[tool.function.name] = (place, tool.function)
        if self.named is not None:
            if self.named not in found:
                param = "function_call" if request.legacy_functions else "tool_choice"
                raise BadRequest(f"{param} names a function that is not among those offered.", param=param)
            found = {self.named: found[self.named]}
        self._functions: dict[str, tuple[int, FunctionDefinition]] = found
        self._schemas: dict[str, JsonSchema] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the functions."""
        return tuple(self._functions)

    def described(self) -> list[dict[str, Any]]:
        """Return name, description and parameters of each function."""
        return [
            {"name": one.name, "description": one.description, "parameters": one.parameters}
            for _, one in self._functions.values()
        ]

    def strict(self, name: str) -> bool:
        """Return True if the client wants no call of a function whose arguments do not fit its schema."""
        return bool((self._functions[name][1].model_extra or {}).get("strict"))

    def checked(self, name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Return the arguments of a call, changed to fit if possible, and what is wrong with them, or ""."""
        schema = self._schema(name)
        fault = schema.fault(arguments)
        if fault is None:
            return arguments, ""
        for form in fitted(arguments, schema.plain):
            if isinstance(form, dict) and schema.fits(form):
                return form, ""
        return arguments, f"{name}: {fault}"

    def _schema(self, name: str) -> JsonSchema:
        # Imported when it is first needed: it takes 70 ms and 10 MB, and few requests need it.
        from gateway.formats.structured.schema import JsonSchema

        if name not in self._schemas:
            place, function = self._functions[name]
            inner = "parameters" if self._member == "functions" else "function.parameters"
            self._schemas[name] = JsonSchema(function.parameters or {}, f"{self._member}[{place}].{inner}")
        return self._schemas[name]


def written(arguments: dict[str, Any]) -> str:
    """Return arguments as JSON."""
    return json.dumps(arguments, ensure_ascii=False)
