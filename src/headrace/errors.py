"""Every error that Headrace raises on purpose. A bad argument is a plain ValueError or TypeError."""


class Error(Exception):
    """Base class: something about the model, the toolchain or the target, not about the call."""


class InvalidModel(Error):
    """The model file or object is damaged, inconsistent, or outside what ONNX allows."""


class UnsupportedOperator(Error):
    """A valid model uses something Headrace cannot do.

    op: operator type, "" for a value; node: name of the node or value; stage: "normalise", "lower", …;
    hint: what the user can do about it.
    """

    def __init__(self, op: str, node: str, stage: str, hint: str) -> None:
        self.op, self.node, self.stage, self.hint = op, node, stage, hint
        culprit = f"{op} (node {node!r})" if op else f"value {node!r}"
        super().__init__(f"{culprit} is not supported at stage {stage!r}: {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.op, self.node, self.stage, self.hint)


class NotStreamable(Error):
    """No exact step program exists for this model.

    node: name of the node that needs what is not there yet, "" where it is no single one; reason: why; hint:
    what would help.
    """

    def __init__(self, node: str, reason: str, hint: str) -> None:
        self.node, self.reason, self.hint = node, reason, hint
        subject = f"node {node!r}" if node else "the model"
        super().__init__(f"{subject} cannot stream: {reason.rstrip('.')}; {hint}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.node, self.reason, self.hint)


class StreamFull(Error):
    """A stream with unlimited past reached its stated maximum; reset it to go on."""


class ToolchainError(Error):
    """No usable C compiler, or the compiler failed. The message says what to install or run."""


class TargetError(Error):
    """The target is unknown, or cannot be built or run on this machine."""
