"""annotation-engine: labels large corpora with LLMs, several inputs in one call.

The public API. Asking: `Engine`, `annotate_sync`, `ResultStream`. What is asked: `Task`, `Field`, `FieldType`,
`Example`, `load_task`.
Of whom and how: `Endpoint`, `Secret`, `RunConfig`, `Limits`, `Packing`, `Quality`, `Recovery`, `Prices`, `Escalation`.
What comes back: `Result`, `RecordError`, `Counters`. What goes wrong: `EngineError`, `ConfigError`, `InputError`,
`StoreError`, `RunStopped`, `MissingExtra`.
"""

from engine.report.metrics import Counters as Counters
from engine.run.result_stream import ResultStream as ResultStream
from engine.run.session import Engine as Engine
from engine.run.session import annotate_sync as annotate_sync
from engine.run.tasks import load_task as load_task
from engine.vocabulary.config import Endpoint as Endpoint
from engine.vocabulary.config import Escalation as Escalation
from engine.vocabulary.config import Limits as Limits
from engine.vocabulary.config import Packing as Packing
from engine.vocabulary.config import Prices as Prices
from engine.vocabulary.config import Quality as Quality
from engine.vocabulary.config import Recovery as Recovery
from engine.vocabulary.config import RunConfig as RunConfig
from engine.vocabulary.errors import ConfigError as ConfigError
from engine.vocabulary.errors import EngineError as EngineError
from engine.vocabulary.errors import InputError as InputError
from engine.vocabulary.errors import MissingExtra as MissingExtra
from engine.vocabulary.errors import RunStopped as RunStopped
from engine.vocabulary.errors import StoreError as StoreError
from engine.vocabulary.secrets import Secret as Secret
from engine.vocabulary.task import Example as Example
from engine.vocabulary.task import Field as Field
from engine.vocabulary.task import FieldType as FieldType
from engine.vocabulary.task import Task as Task
from engine.vocabulary.values import RecordError as RecordError
from engine.vocabulary.values import Result as Result
