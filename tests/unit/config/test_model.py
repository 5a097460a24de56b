from gateway.config import ModelSettings


def test_a_model_needs_only_a_name() -> None:
    model = ModelSettings(name="glm/chat-6b")
    assert (model.default_output, model.max_n, model.strict, model.trim) == (1024, 4, False, False)
    assert (model.system, model.leading_assistant, model.tools) == ("merge", "pair", "refuse")
    assert model.context is None
