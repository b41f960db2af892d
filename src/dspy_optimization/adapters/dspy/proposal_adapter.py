"""Reads proposals of models that do not keep to the format.

Small models answer a request for an instruction with an instruction and no markers around it. DSPy calls that
unreadable, and COPRO, InferRules and MIPROv2 then lose the whole search. A proposal is only text that is tried out
before anybody relies on it, so whatever the model wrote may be one; the agent's own answers are never read this way.
"""

from typing import Any

import dspy

_ASIDE = ("reasoning", "discussion")
"""Outputs in which a model thinks aloud: they are not what was asked for."""


class ProposalAdapter(dspy.ChatAdapter):
    """`ChatAdapter` that takes an answer without markers as the text that was asked for."""

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Return the fields, or the whole answer as the main one where all are text.

        Raises:
            dspy.AdapterParseError: there is no text, or a field is not to be text; DSPy then asks for JSON.
        """
        try:
            found: dict[str, Any] = super().parse(signature, completion)
        except dspy.AdapterParseError as error:
            outputs = signature.output_fields
            known = {name: text for name, text in (error.parsed_result or {}).items() if str(text).strip()}
            main = next((name for name in outputs if name not in _ASIDE), None)
            text = completion.split("[[ ##")[0].strip() if not known else ""
            if main is None or any(field.annotation is not str for field in outputs.values()):
                raise
            if main not in known and not text:
                raise
            return dict.fromkeys(outputs, "") | {main: text} | known
        return found
