"""What is said to the real models: the turns of a chat, and a text that is longer than a sliding window of 512."""

TURNS = (
    "What is the capital of France?",
    "Tell me more about that city in three sentences.",
    "Why is the sky blue?",
    "Tell me a short story about a fox.",
    "Give me a list of five fruits.",
    "How do I boil an egg? Explain it step by step.",
    "Please write a Python function that adds two numbers.",
    "What was my first question?",
)
MAX_TOKENS = 48  # of an answer

TEXT = """\
The tide mill at the mouth of the creek had not turned for sixty years when Anna Lindqvist bought it. The roof had gone
first, then the floor of the upper storey, and in the winter of the great storm the sea took the eastern wall and left
its stones in a row on the beach, as if somebody had meant to count them. What remained was the wheel pit, the sluice,
and a wooden gate so heavy with weed that two men could not lift it.

A tide mill works in a simple way. When the sea rises, it pushes a gate open and fills a pond behind a dam. When the sea
falls, the weight of the water in the pond presses the gate shut. The miller waits until the level outside is lower than
the wheel, and then he lets the pond run out beneath it. He can grind for five or six hours, twice in a day, and each
day fifty minutes later than on the day before, because the moon is late by that much. So a tide miller slept when the
sea let him, and it was said in the village that you could tell what kind of moon it was by the rings under his eyes.

Anna was no miller. She had been a teacher of mathematics in the city, and she liked things that had reasons. On her
first evening she sat on the dam with a notebook and wrote down the height of the water every ten minutes. On the second
evening she did the same. After two weeks she had a curve, and after a month she had a table, and she could say exactly
to the minute when the gate would open. The fishermen, who had known this all their lives, came to look at the table
and found nothing wrong with it, which they took as a sign that the woman could be trusted.

The gate was the first thing that she repaired. She scraped the weed from it, bought new hinges of bronze, and hung a
weight of forty kilograms on the inner side, so that it would close a little before the water turned. Then she cleared
the wheel pit. In the mud she found eleven clay pipes, a child's shoe, the blade of a saw, and a coin with a hole in it.
The wheel itself was made by a carpenter called Jonas, who had never made one and said so. He drew it on the floor of
his barn with chalk: twelve feet across, with thirty-two paddles of oak, and an axle from the trunk of a larch.

"How fast will it turn?" he asked.

"Six times in a minute, if the pond is full," said Anna. "Slower later on."

"And what will it grind?"

She had not thought about that. There was no grain in the village any more; the fields had become meadows, and the flour
came in paper bags from a factory two hundred miles away. For a week the question went from house to house. The baker
said that he would take rye if somebody would grow it. The priest knew a farmer in the next valley who still had seed.
In the end it was the school that decided the matter, since the children had been promised that they would see a mill
at work, and a promise to children cannot be put off as easily as one to the bank.

They opened the sluice on a morning in September, at twenty minutes past seven. The water came under the gate with a
sound like cloth being torn, the first paddle moved, and then the second, and"""
CONTINUED = 40  # tokens after the text
