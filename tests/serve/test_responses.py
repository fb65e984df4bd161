"""OpenAI's Responses API."""

import json

import pytest
from scripted import THOUGHTS, scripted_model
from serving import wait_until

from edgeq.serve.response_input import messages_of
from edgeq.serve.response_store import Kept, ResponseStore

PATH = "/v1/responses"
AB = {"format": {"type": "json_schema", "name": "a", "schema": {"const": "ab"}, "strict": True}}


def ask(**more):
    return {"input": "a", "max_output_tokens": 3, "temperature": 0, **more}


def events(text):
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_a_response(served):
    body = served.post(PATH, **ask(metadata={"mine": "1"})).json()
    assert body["object"] == "response" and body["status"] == "incomplete" and body["model"] == "counting"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"} and body["metadata"] == {"mine": "1"}
    (item,) = body["output"]
    assert item["type"] == "message" and item["role"] == "assistant" and item["status"] == "incomplete"
    assert [(part["type"], part["text"]) for part in item["content"]] == [("output_text", ";<=")]
    usage = body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (6, 3, 9)


def test_events_have_types_and_numbers(served):
    answer = served.post(PATH, **ask(stream=True))
    names = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    told = events(answer.text)
    assert [one["type"] for one in told] == names
    assert [one["sequence_number"] for one in told] == [*range(len(told))]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert "".join(one["delta"] for one in told if one["type"].endswith("text.delta")) == ";<="
    assert told[0]["response"]["output"] == [] and told[0]["response"]["status"] == "in_progress"
    whole = served.post(PATH, **ask()).json()
    last = told[-1]["response"]
    differing = {key for key in whole if whole[key] != last[key]}
    assert differing <= {"id", "created_at", "output", "usage"} and whole["output"][0]["content"] == [
        told[-3]["part"]
    ]  # of one state machine


def test_one_that_goes_on_from_another(served):
    first = served.post(PATH, **ask(instructions="s", max_output_tokens=1)).json()
    second = served.post(PATH, **ask(input="b", previous_response_id=first["id"])).json()
    prompt = "u:a|a:;|u:b|a:"
    assert second["usage"]["input_tokens"] == len(prompt), "instructions are of one response alone"
    counted = served.post(f"{PATH}/input_tokens", input="b", previous_response_id=first["id"]).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": len(prompt)}
    assert served.http.get(f"{PATH}/{second['id']}").json() == second
    listed = served.http.get(f"{PATH}/{second['id']}/input_items").json()["data"]
    assert listed == [{"type": "message", "role": "user", "content": "b"}]
    assert served.http.delete(f"{PATH}/{first['id']}").json()["deleted"] is True
    gone = served.post(PATH, **ask(previous_response_id=first["id"]))
    assert gone.status_code == 400 and gone.json()["error"]["code"] == "previous_response_not_found"
    assert served.post(PATH, **ask(previous_response_id=second["id"])).status_code == 200
    assert served.http.get(f"{PATH}/{first['id']}").status_code == 404


def test_one_that_is_not_to_be_stored(served):
    body = served.post(PATH, **ask(store=False)).json()
    assert body["store"] is False and served.http.get(f"{PATH}/{body['id']}").status_code == 404


def test_one_in_json(served):
    pytest.importorskip("llguidance", reason="pip install llguidance")
    body = served.post(PATH, **ask(text=AB, max_output_tokens=30)).json()
    assert json.loads(body["output"][0]["content"][0]["text"]) == "ab" and body["status"] == "completed"
    refused = served.post(PATH, **ask(text={"format": {"type": "json_schema", "name": "a"}}))
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "text.format"


def test_log_probabilities(served):
    body = served.post(PATH, **ask(top_logprobs=1)).json()
    scores = body["output"][0]["content"][0]["logprobs"]
    assert [one["token"] for one in scores] == [";", "<", "="] and len(scores[0]["top_logprobs"]) == 1
    told = events(served.post(PATH, **ask(include=["message.output_text.logprobs"], stream=True)).text)
    deltas = [one for one in told if one["type"] == "response.output_text.delta"]
    assert [score["token"] for one in deltas for score in one["logprobs"]] == [";", "<", "="]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"conversation": "c"}, "conversation"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content of type 'input_file'"),
        ({"input": [{"type": "computer_call"}]}, "input[0] of type 'computer_call'"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": 5}]}, "input"),
        ({"input": [{"role": "assistant", "content": "b"}]}, "input"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
    ],
)
def test_what_is_refused(served, fields, param):
    answer = served.post(PATH, **ask(**fields))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text


def test_tools_of_other_kinds_are_passed_over(served):
    tools = [{"type": "web_search"}, {"type": "of_the_future"}]
    assert served.post(PATH, **ask(tools=tools, tool_choice="auto")).status_code == 200


def test_what_items_say():
    talk = messages_of(
        "Be kind.",
        [
            {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"type": "message", "role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "1", "name": "weather", "arguments": '{"in": "Rome"}'},
            {"type": "function_call", "call_id": "2", "name": "time", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "noon"}]},
        ],
    )
    calls = [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"in": "Rome"}'}},
        {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]
    assert talk == [
        {"role": "system", "content": "Be kind.\n\nBe brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": calls, "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "2", "content": "noon"},
    ]


WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CLOCK = {"type": "function", "name": "clock"}
CALLS = """They ask.
</think>

I look.
<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
<tool_call>
{"name": "clock", "arguments": {}}
</tool_call>"""


@pytest.fixture
def thinking(start):
    """A server of a model that thinks, says something and calls two tools."""
    pytest.importorskip("llguidance", reason="pip install llguidance")
    served = start({"calls": lambda say: scripted_model(CALLS, THOUGHTS)})
    wait_until(lambda: served.roster.ready)
    return served


def test_tools_and_thoughts(thinking):
    fields = {"input": "Paris?", "temperature": 0, "max_output_tokens": 300}
    fields |= {"tools": [WEATHER, {"type": "web_search"}, CLOCK]}
    body = thinking.post(PATH, **fields).json()
    thought, said, weather, clock = body["output"]
    assert body["status"] == "completed" and body["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    assert thought["type"] == "reasoning" and thought["content"] == [{"type": "reasoning_text", "text": "They ask."}]
    assert said["content"][0]["text"].strip() == "I look."
    assert [(call["type"], call["name"], json.loads(call["arguments"])) for call in (weather, clock)] == [
        ("function_call", "get_weather", {"city": "Paris"}),
        ("function_call", "clock", {}),
    ]
    assert weather["call_id"] and weather["call_id"] != clock["call_id"]
    told = events(thinking.post(PATH, **fields, stream=True).text)
    last = told[-1]["response"]["output"]
    assert [one["type"] for one in last] == ["reasoning", "message", "function_call", "function_call"]
    assert [one.get("content") for one in last] == [one.get("content") for one in body["output"]]
    added = [one for one in told if one["type"] == "response.output_item.added"]
    assert [one["output_index"] for one in added] == [0, 1, 2, 3] and added[2]["item"]["arguments"] == ""
    for index, call in ((2, weather), (3, clock)):
        own = [one for one in told if one.get("output_index") == index]
        assert "".join(one["delta"] for one in own if one["type"].endswith("arguments.delta")) == call["arguments"]
        assert [one["type"].rpartition(".")[2] for one in own[-2:]] == ["done", "done"]
    outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": "5"} for call in (weather, clock)]
    again = thinking.post(PATH, **fields | {"input": outputs, "previous_response_id": body["id"]})
    assert again.status_code == 200


def test_which_tool(thinking):
    fields = {"input": "Paris?", "temperature": 0, "max_output_tokens": 300, "tools": [WEATHER, CLOCK]}
    only = thinking.post(PATH, **fields, tool_choice={"type": "function", "name": "clock"}).json()["output"]
    assert [one["name"] for one in only if one["type"] == "function_call"] == ["clock"]
    none = thinking.post(PATH, **fields, tool_choice="none").json()["output"]
    assert "function_call" not in [one["type"] for one in none]


def test_the_client_s_tools(thinking):
    openai = pytest.importorskip("openai", reason="pip install openai")
    with openai.OpenAI(base_url=f"{thinking.url}/v1", api_key="any", max_retries=0) as client:
        options = {"model": "calls", "input": "Paris?", "tools": [WEATHER, CLOCK], "temperature": 0}
        with client.responses.stream(**options) as stream:
            deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
            final = stream.get_final_response()
        assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
        assert "".join(deltas) == "".join(item.arguments for item in final.output[2:])


def test_the_store_has_bounds():
    store = ResponseStore(most=3, largest=1000)
    for i in range(5):
        store.add(Kept({"id": str(i)}, [], 0))
    assert len(store) == 3 and store.get("4").response == {"id": "4"}
    store.add(Kept({"id": "large"}, [{"text": "x" * 960}], 0))
    assert len(store) == 1
    store.drop("large")
    store.add(Kept({"id": "larger"}, [{"text": "x" * 1000}], 0))
    assert len(store) == 0


def test_the_client(served):
    openai = pytest.importorskip("openai", reason="pip install openai")
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        first = client.responses.create(model="counting", input="a", max_output_tokens=3, temperature=0)
        assert first.output_text == ";<=" and first.status == "incomplete" and first.usage.total_tokens == 9
        options = {"model": "counting", "input": "b", "max_output_tokens": 2, "temperature": 0}
        longer = {**options, "max_output_tokens": 20, "text": AB, "previous_response_id": first.id}
        with client.responses.stream(**longer) as stream:
            kinds = [event.type for event in stream]
            second = stream.get_final_response()
        assert second.output_text == '"ab"' and kinds[0] == "response.created" and kinds[-1] == "response.completed"
        assert client.responses.retrieve(second.id).id == second.id
        assert [item.content for item in client.responses.input_items.list(second.id)] == ["b"]
        assert client.responses.input_tokens.count(model="counting", input="a").input_tokens == 6
        client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(second.id)
        parts = list(client.responses.create(**options, stream=True))
        assert "".join(part.delta for part in parts if part.type == "response.output_text.delta") == ";<"
