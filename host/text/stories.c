/* Short stories from a grammar.
 *
 * A story is one of several plots over a cast, a place and things that are drawn first and kept, so
 * that names, colours, places, weather and character traits said early decide what is said later: a
 * careless hero gets hurt, a thing is found where it was put down, a cat in a tree needs a ladder.
 *
 * Sentences are templates: [a|b|c] is a choice (nested ones too), {key} a value of the story, `^`
 * makes the next letter a capital, and `#` is "a" or "an" by what follows. */
#include "text/stories.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/rng.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct value {
    const char *key, *text;
};

struct story {
    struct itera_rng rng;
    struct itera_story_text *out;
    struct value values[64];
    size_t value_count;
    size_t article; /* where an "a" was written whose noun is to come, or 0 */
    bool capital, failed;
};

static void put(struct story *s, char c)
{
    struct itera_story_text *out = s->out;
    if (out->length + 2 > out->capacity) {
        size_t capacity = out->capacity * 2 + 4096;
        char *data = realloc(out->data, capacity);
        if (!data) {
            s->failed = true;
            return;
        }
        out->data = data;
        out->capacity = capacity;
    }
    if (s->capital && c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    s->capital = false;
    if (s->article && c != ' ') {
        if (strchr("aeiou", c)) {
            memmove(out->data + s->article + 1, out->data + s->article, out->length - s->article);
            out->data[s->article] = 'n';
            out->length++;
        }
        s->article = 0;
    }
    out->data[out->length++] = c;
}

static void set(struct story *s, const char *key, const char *text)
{
    for (size_t i = 0; i < s->value_count; i++) {
        if (strcmp(s->values[i].key, key) == 0) {
            s->values[i].text = text;
            return;
        }
    }
    if (s->value_count < COUNT(s->values))
        s->values[s->value_count++] = (struct value){key, text};
}

static const char *get(const struct story *s, const char *key, size_t length)
{
    for (size_t i = 0; i < s->value_count; i++)
        if (strncmp(s->values[i].key, key, length) == 0 && s->values[i].key[length] == 0)
            return s->values[i].text;
    return "";
}

/* The end of the alternative that starts at p: its '|' or ']'. */
static const char *alternative_end(const char *p, const char *end)
{
    int depth = 0;
    for (; p < end; p++) {
        if (depth == 0 && (*p == '|' || *p == ']'))
            return p;
        depth += (*p == '[') - (*p == ']');
    }
    return end;
}

/* Values may contain templates, hence the recursion; it ends because values name only simpler ones.
 */
static void expand(struct story *s, const char *p, const char *end)
{
    while (p < end) {
        if (*p == '[') {
            uint32_t count = 1;
            const char *close = alternative_end(p + 1, end);
            for (; close < end && *close == '|'; close = alternative_end(close + 1, end))
                count++;
            uint32_t pick = itera_rng_below(&s->rng, count);
            const char *from = p + 1;
            while (pick-- > 0)
                from = alternative_end(from, end) + 1;
            expand(s, from, alternative_end(from, end));
            p = close + 1;
        } else if (*p == '{') {
            const char *close = memchr(p, '}', (size_t)(end - p));
            const char *text = get(s, p + 1, (size_t)(close - p - 1));
            expand(s, text, text + strlen(text));
            p = close + 1;
        } else if (*p == '^') {
            s->capital = true;
            p++;
        } else if (*p == '#') {
            put(s, 'a');
            s->article = s->out->length;
            p++;
        } else {
            put(s, *p++);
        }
    }
}

static void say(struct story *s, const char *template)
{
    expand(s, template, template + strlen(template));
}

static uint32_t below(struct story *s, size_t n)
{
    return itera_rng_below(&s->rng, (uint32_t)n);
}

static bool maybe(struct story *s, uint32_t percent)
{
    return itera_rng_below(&s->rng, 100) < percent;
}

static const char *const girls[] = {"Lily", "Mia",   "Anna", "Rosa",  "Ella",  "Zoe",   "Nora",
                                    "Ruby", "Clara", "Ivy",  "Maya",  "Jane",  "Emma",  "Daisy",
                                    "Tess", "Lucy",  "Sara", "Amy",   "Kate",  "Molly", "Nina",
                                    "June", "Lena",  "Wren", "Hazel", "Alice", "Grace"};
static const char *const boys[] = {"Tom",  "Ben",  "Max",   "Leo",   "Sam",  "Finn",  "Jack",
                                   "Tim",  "Noah", "Oscar", "Eli",   "Hugo", "Peter", "Milo",
                                   "Adam", "Luke", "Theo",  "Henry", "Owen", "Felix", "Ravi",
                                   "Kai",  "Omar", "Jonas", "Dan",   "Will", "Arlo"};
static const char *const beasts[] = {"rabbit",   "fox",  "bear", "mouse",  "squirrel", "hedgehog",
                                     "otter",    "duck", "owl",  "badger", "kitten",   "puppy",
                                     "elephant", "mole", "goat", "frog",   "turtle",   "pig"};
static const char *const beast_names[] = {"Pip",   "Bramble", "Hoppy",  "Nibbles", "Fern",
                                          "Rusty", "Dot",     "Pebble", "Acorn",   "Biscuit",
                                          "Mossy", "Tuppy",   "Clover", "Button",  "Snow"};
static const char *const elders[][3] = {{"Mom", "she", "her"},        {"Dad", "he", "his"},
                                        {"Grandma", "she", "her"},    {"Grandpa", "he", "his"},
                                        {"Aunt May", "she", "her"},   {"Uncle Bob", "he", "his"},
                                        {"Mrs. Brown", "she", "her"}, {"Mr. Green", "he", "his"}};
static const char *const colours[] = {"red",   "blue",  "green",  "yellow", "orange", "purple",
                                      "white", "black", "silver", "golden", "pink",   "brown"};
/* name, where it is, something that stands there */
static const char *const places[][3] = {{"the park", "in the park", "the tall slide"},
                                        {"the forest", "in the forest", "an old oak tree"},
                                        {"the beach", "on the beach", "a big gray rock"},
                                        {"the farm", "on the farm", "the wooden barn"},
                                        {"the garden", "in the garden", "the stone wall"},
                                        {"the lake", "by the lake", "the small boat house"},
                                        {"the hill", "on the hill", "a crooked apple tree"},
                                        {"the village", "in the village", "the round well"},
                                        {"the meadow", "in the meadow", "a pile of hay"},
                                        {"the river", "by the river", "the narrow bridge"},
                                        {"the school yard", "in the school yard", "the long bench"},
                                        {"the market", "at the market", "the fruit stand"},
                                        {"the playground", "on the playground", "the sand box"},
                                        {"the valley", "in the valley", "a little windmill"}};
/* name, what it does, what it is made of */
static const char *const toys[][3] = {{"ball", "bounced very high", "rubber"},
                                      {"kite", "flew above the trees", "paper"},
                                      {"drum", "made a loud sound", "wood"},
                                      {"boat", "floated on the water", "wood"},
                                      {"doll", "had a tiny hat", "cloth"},
                                      {"truck", "had four big wheels", "metal"},
                                      {"robot", "could walk and beep", "metal"},
                                      {"whistle", "sang like a bird", "wood"},
                                      {"puzzle", "had a hundred pieces", "paper"},
                                      {"teddy bear", "was soft and warm", "cloth"},
                                      {"top", "could spin for a whole minute", "metal"},
                                      {"lantern", "shone in the dark", "glass"},
                                      {"umbrella", "was as big as a tent", "cloth"},
                                      {"bell", "rang when you shook it", "metal"},
                                      {"train", "went around and around", "wood"},
                                      {"crown", "sparkled in the sun", "paper"},
                                      {"marble", "had a swirl inside", "glass"},
                                      {"hat", "kept the rain away", "cloth"}};
static const char *const foods[] = {"cookies",     "apples", "cake",    "sandwiches", "berries",
                                    "honey bread", "pears",  "carrots", "pancakes",   "soup",
                                    "popcorn",     "cheese", "plums",   "muffins",    "nuts"};

static void set_person(struct story *s, const char *const keys[5], bool *girl, const char *other)
{
    const char *name;
    do {
        *girl = maybe(s, 50);
        name = *girl ? girls[below(s, COUNT(girls))] : boys[below(s, COUNT(boys))];
    } while (strcmp(name, other) == 0);
    set(s, keys[0], name);
}

static void set_pronouns(struct story *s, const char *const keys[5], bool girl)
{
    set(s, keys[1], girl ? "she" : "he");
    set(s, keys[2], girl ? "her" : "his");
    set(s, keys[3], girl ? "her" : "him");
    set(s, keys[4], girl ? "girl" : "boy");
}

static void draw_cast(struct story *s)
{
    static const char *const hero[5] = {"hero", "he", "his", "him", "child"};
    static const char *const friend[5] = {"friend", "fhe", "fhis", "fhim", "fchild"};
    bool girl;
    if (maybe(s, 30)) {
        /* Animals: two names, two kinds. */
        size_t a = below(s, COUNT(beast_names)), b = below(s, COUNT(beast_names) - 1);
        size_t k = below(s, COUNT(beasts)), l = below(s, COUNT(beasts) - 1);
        set(s, "hero", beast_names[a]);
        set(s, "friend", beast_names[b + (b >= a)]);
        set_pronouns(s, hero, maybe(s, 50));
        set_pronouns(s, friend, maybe(s, 50));
        set(s, "child", beasts[k]);
        set(s, "fchild", beasts[l + (l >= k)]);
        set(s, "friend_is", "# {fchild} who lived next door");
    } else {
        set_person(s, hero, &girl, "");
        set_pronouns(s, hero, girl);
        const char *name = get(s, "hero", 4);
        set_person(s, friend, &girl, name);
        set_pronouns(s, friend, girl);
        set(s, "friend_is",
            maybe(s, 50)   ? "{his} best friend"
            : maybe(s, 50) ? "# {fchild} from school"
                           : "{his} neighbor");
    }
    const char *const *elder = elders[below(s, COUNT(elders))];
    set(s, "elder", elder[0]);
    set(s, "ehe", elder[1]);
    set(s, "ehis", elder[2]);
}

static void draw_things(struct story *s)
{
    size_t a = below(s, COUNT(toys)), b = below(s, COUNT(toys) - 1);
    size_t c = below(s, COUNT(colours)), d = below(s, COUNT(colours) - 1);
    const char *const *place = places[below(s, COUNT(places))];
    b += b >= a;
    set(s, "toy", toys[a][0]);
    set(s, "toy_does", toys[a][1]);
    set(s, "toy_of", toys[a][2]);
    set(s, "toy2", toys[b][0]);
    set(s, "toy2_does", toys[b][1]);
    set(s, "colour", colours[c]);
    set(s, "colour2", colours[d + (d >= c)]);
    set(s, "place", place[0]);
    set(s, "at_place", place[1]);
    set(s, "spot", place[2]);
    size_t f = below(s, COUNT(foods)), g = below(s, COUNT(foods) - 1);
    set(s, "food", foods[f]);
    set(s, "food2", foods[g + (g >= f)]);
    set(s, "day", "[one day|one morning|one afternoon|on {weekday}|one [sunny|quiet|bright] day]");
    set(s, "weekday", "[Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday]");
    set(s, "glad", "[happy|glad|very happy|full of joy|proud]");
    set(s, "sad", "[sad|very sad|upset|unhappy]");
}

static void open_story(struct story *s, const char *trait)
{
    set(s, "trait", trait);
    say(s, "[Once upon a time, there was|Once there was|There once was|Long ago, there was] # "
           "{trait} [little |young |small ||]{child} [named|called] {hero}. ");
    if (maybe(s, 60))
        say(s, "^{he} lived in # [small|tiny|old|cozy|tall] house [near|close to|not far from] "
               "{place} with {elder}. ");
    if (maybe(s, 35))
        say(s, "^{he} liked [to sing|to run|to draw|to count the stars|to read|to play outside|to "
               "dance|to look for bugs|to tell jokes|to help {elder}]. ");
}

static void moral(struct story *s, const char *lesson)
{
    set(s, "lesson", lesson);
    say(s, "[From that day on, {hero} always remembered that {lesson}.|{hero} learned that "
           "{lesson}.|That night, {hero} thought about the day. ^{he} knew now that "
           "{lesson}.|\"I learned something today,\" said {hero}. \"I learned that {lesson}.\"|And "
           "{hero} never forgot that {lesson}.]");
}

/* A thing put down while doing something else is found where that was done. */
static void plot_lost(struct story *s)
{
    static const char *const acts[][2] = {
        {"picked some flowers beside the fence", "in the grass beside the fence"},
        {"drank some water at the pump", "next to the pump"},
        {"climbed on a tree stump to look around", "on the tree stump"},
        {"stopped to pet a sleepy dog under the bench", "under the bench"},
        {"looked for berries behind a bush", "behind the berry bush"},
        {"tied a loose shoe on the steps", "on the steps"},
        {"fed the ducks at the pond", "at the edge of the pond"},
        {"watched the ants near a hollow log", "inside the hollow log"},
        {"made a crown of leaves beneath the maple tree", "beneath the maple tree"}};
    const char *const *act = acts[below(s, COUNT(acts))];
    set(s, "act", act[0]);
    set(s, "where", act[1]);
    open_story(s, "[cheerful|dreamy|busy|merry]");
    say(s, "{hero} had # {colour} {toy} that {toy_does}. It was {his} favorite [toy|thing in the "
           "world].\n^{day}, {hero} took the {toy} to {place}. On the way, {he} {act}. Then {he} "
           "went on to {spot} and played [for a long time|until noon|all afternoon].\n");
    say(s,
        "When it was time to go home, {hero} looked [around|down|in {his} bag]. \"Oh no! Where is "
        "my {toy}?\" {he} cried. ^{he} looked [behind|under|near] {spot}, but the {toy} was not "
        "there. {hero} felt {sad}.\n");
    say(s, "{friend}, {friend_is}, came by. \"[Why are you crying|What is wrong|What happened]?\" "
           "asked {friend}.\n\"I lost my {colour} {toy},\" said {hero}.\n\"[Do not worry|Let us "
           "think|I can help]. What did you do before you came here?\"\n{hero} thought [hard|for a "
           "moment]. \"I {act}!\" {he} said.\n");
    say(s, "They [ran|walked|hurried] back together. And there, {where}, was the {colour} {toy}! "
           "{hero} hugged {friend}. \"Thank you! You are a [good|true|clever] friend.\" ");
    moral(s, "[it helps to stop and think|a friend can help you remember|you should take care of "
             "your things]");
}

static void plot_share(struct story *s)
{
    bool kind = maybe(s, 55);
    open_story(s, kind ? "[kind|generous|gentle|sweet]" : "[greedy|selfish|grumpy|spoiled]");
    say(s, "^{day}, {elder} gave {hero} a [big|full|heavy] basket of {food}. {hero} carried it to "
           "{place} and sat down near {spot}.\n{friend}, {friend_is}, came along. \"I am so "
           "hungry,\" said {friend}. \"May I have some {food}?\"\n");
    if (kind) {
        say(s,
            "\"[Of course|Yes, please sit down|Sure]!\" said {hero}. ^{he} gave half of the {food} "
            "to {friend}. They ate and [laughed|talked|sang songs] until the basket was empty.\n");
        say(s, "The next day, {hero} [forgot {his} lunch at home|had nothing to eat|dropped {his} "
               "lunch in the mud]. ^{his} belly [rumbled|growled|hurt]. Then {friend} came with # "
               "{colour} box. Inside were warm {food2}. \"You shared with me, so now I share with "
               "you,\" said {friend}. {hero} was {glad}. ");
        moral(s, "[kindness comes back|sharing makes two people happy|a gift is never lost]");
    } else {
        say(s,
            "\"No! [They are all mine|This is mine|Go away],\" said {hero}. {friend} walked away "
            "with {fhis} head down. {hero} ate [everything|all of the {food}] alone. Soon {his} "
            "belly began to hurt. ^{he} wanted to play, but nobody was there.\n");
        say(s,
            "\"What is the matter?\" asked {elder} [at home|in the evening].\n\"I ate too much, "
            "and "
            "{friend} does not like me now,\" said {hero} in a [small|quiet] voice.\n\"Then you "
            "know what to do,\" said {elder}.\nThe next morning, {hero} brought {food2} to "
            "{friend}. \"I am sorry. These are for you.\" {friend} smiled, and they ate together. "
            "{hero} was not {trait} anymore. ");
        moral(s, "[it is better to share|food tastes better with a friend|being greedy makes you "
                 "lonely]");
    }
}

static void plot_warning(struct story *s)
{
    static const char *const dangers[][4] = {
        {"climb the tall tree", "the branches are wet from the rain", "a branch broke", "knee"},
        {"run on the bridge", "the boards are covered with ice", "{he} slipped", "elbow"},
        {"touch the oven", "it is still hot from the bread", "it burned {him}", "finger"},
        {"jump over the fence", "there are thorns on the other side", "{he} fell in the thorns",
         "leg"},
        {"open the hive", "the bees are busy and angry today", "a bee flew out and stung {him}",
         "nose"},
        {"swing too high", "the rope is old and thin", "the rope snapped", "back"},
        {"tease the goose", "she is guarding her eggs", "the goose bit {him}", "hand"},
        {"walk on the frozen pond", "the sun has made it soft", "the ice cracked", "foot"}};
    const char *const *danger = dangers[below(s, COUNT(dangers))];
    bool careful = maybe(s, 45);
    set(s, "danger", danger[0]);
    set(s, "because", danger[1]);
    set(s, "then", danger[2]);
    set(s, "part", danger[3]);
    open_story(s,
               careful ? "[careful|wise|patient|thoughtful]" : "[careless|wild|stubborn|naughty]");
    say(s, "^{day}, {hero} wanted to go out and play with {friend}. \"You may go,\" said {elder}, "
           "\"but do not {danger}. ^{because}.\"\n\"[Yes|All right|I promise],\" said {hero}.\n");
    if (careful) {
        say(s, "Outside, {friend} said, \"Come on, let us {danger}! Nobody will see us.\"\n{hero} "
               "shook "
               "{his} head. \"No. {elder} said that {because}. Let us play with my {colour} {toy} "
               "instead.\"\n{friend} [sighed|was not sure], but then {fhe} agreed. The {toy} "
               "{toy_does}, and they had so much fun that they forgot everything else.\n");
        say(s,
            "When {elder} came to look, {ehe} was {glad}. \"You listened to me,\" {ehe} said, and "
            "gave them both {food}. ");
        moral(s,
              "[it is good to listen|being careful keeps you safe|you can have fun and be safe]");
    } else {
        say(s,
            "But {hero} did not listen. When nobody was looking, {he} began to {danger}. \"Stop!\" "
            "shouted {friend}. It was too late. ^{then}! \"Ouch, my {part}!\" cried {hero}.\n");
        say(s,
            "{friend} ran to get {elder}. {elder} [washed|looked at|cleaned] the {part} and put a "
            "{colour} bandage on it. \"I told you that {because},\" said {elder} "
            "[softly|gently|quietly]. \"I am sorry,\" said {hero}. \"Next time I will listen.\"\n");
        say(s, "{hero} had to stay in bed for [two|three|four] days. {friend} came to visit and "
               "brought {food}. ");
        moral(s, "[you should listen to good advice|a promise should be kept|some rules keep us "
                 "safe]");
    }
}

static void plot_rescue(struct story *s)
{
    static const char *const cases[][5] = {
        {"kitten", "high up in a tree", "a ladder", "climbed up", "in its arms"},
        {"duckling", "in the middle of the pond", "a long net", "reached out", "in the net"},
        {"puppy", "at the bottom of a deep hole", "a strong rope", "went down", "on {his} back"},
        {"lamb", "in a thorny bush", "thick gloves", "pushed the thorns away", "by its soft wool"},
        {"bird", "behind the window of the dark barn", "a small key", "opened the door",
         "in {his} hands"},
        {"hedgehog", "under a fallen log", "a heavy iron bar", "lifted the log", "in {his} scarf"},
        {"butterfly", "in a sticky spider web", "a thin feather", "brushed the web away",
         "on one finger"}};
    const char *const *c = cases[below(s, COUNT(cases))];
    set(s, "animal", c[0]);
    set(s, "stuck", c[1]);
    set(s, "tool", c[2]);
    set(s, "did", c[3]);
    open_story(s, "[brave|helpful|clever|bold]");
    say(s,
        "^{day}, {hero} and {friend} were walking {at_place}. [Suddenly|Near {spot}], they heard a "
        "[sad|tiny|soft] cry. It was # {colour} {animal}, stuck {stuck}!\n\"We must help,\" said "
        "{hero}. \"But how?\"\n\"We need {tool},\" said {friend}. {hero} ran home as fast as {he} "
        "could and asked {elder} for {tool}.\n");
    if (maybe(s, 40))
        say(s, "The {animal} was [scared|shaking|afraid]. \"Do not be afraid,\" {hero} "
               "[whispered|said "
               "softly]. ");
    say(s,
        "With {tool}, {hero} {did}. [Slowly and carefully|At last|Little by little], {he} got the "
        "{animal} out. It was safe! {friend} clapped {fhis} hands.\n");
    if (maybe(s, 60))
        say(s, "[A week later|Some days later|The next week], {hero} was lost {at_place}. It was "
               "getting dark. Then {he} saw the {colour} {animal}. It [looked at {him} and showed "
               "{him} "
               "the way|led {him} past {spot} and all the way] home. \"You helped me too,\" said "
               "{hero}. ");
    moral(s,
          "[even the smallest animal can be a friend|the right tool makes hard work easy|helping "
          "others is never wasted]");
}

static void plot_garden(struct story *s)
{
    static const char *const plants[][2] = {
        {"carrot", "long and crunchy"},       {"pumpkin", "round and heavy"},
        {"sunflower", "taller than {elder}"}, {"tomato", "juicy and sweet"},
        {"bean", "as high as the roof"},      {"strawberry", "small and sweet"},
        {"melon", "as big as a ball"},        {"rose", "soft and lovely"}};
    const char *const *plant = plants[below(s, COUNT(plants))];
    bool patient = maybe(s, 55);
    set(s, "plant", plant[0]);
    set(s, "grown", plant[1]);
    open_story(s, patient ? "[patient|hard-working|steady|quiet]"
                          : "[lazy|forgetful|sleepy|impatient]");
    say(s,
        "In spring, {elder} gave one {plant} seed to {hero} and one to {friend}. \"Plant it, water "
        "it every day, and wait,\" said {elder}. {hero} put the seed in # {colour} pot, and "
        "{friend} put {fhis} seed in # {colour2} pot.\n");
    if (patient) {
        say(s, "Every [morning|evening], {hero} gave the {colour} pot some water. At first nothing "
               "happened. \"[It is only sleeping|Be patient|Wait a little longer],\" {he} told "
               "{himself}. After [two|three|four] weeks, a tiny green leaf came up. {hero} "
               "[jumped|danced] with joy.\nBut {friend} forgot to water the {colour2} pot, and the "
               "earth became hard and dry. ");
        say(s, "By the end of summer, the {plant} of {hero} was {grown}. {friend} looked at {fhis} "
               "empty "
               "pot and was {sad}. \"I will give you new seeds from mine,\" said {hero}, \"and we "
               "will "
               "water them together.\" ");
        moral(s, "[good things take time|a little work every day goes a long way]");
    } else {
        say(s,
            "On the first day, {hero} gave it water. On the second day, {he} wanted to play with "
            "{his} {toy}. On the third day, {he} forgot about the {colour} pot. But {friend} "
            "watered "
            "the {colour2} pot every day.\n");
        say(s,
            "At the end of summer, the {plant} of {friend} was {grown}. The {colour} pot was empty "
            "and dry. \"Why did mine not grow?\" asked {hero}.\n\"A seed cannot drink when nobody "
            "brings it water,\" said {elder}.\n{hero} was {sad}, but {friend} gave {him} a new "
            "seed. "
            "This time, {hero} watered it every single day. ");
        moral(s, "[you must care for what you want to grow|promises need work|a plant needs water "
                 "every day]");
    }
}

static void plot_fear(struct story *s)
{
    static const char *const fears[][4] = {
        {"the dark", "the lamp went out", "held up {his} {toy} and counted to ten",
         "the stars were shining like little lamps"},
        {"thunder", "a storm came over the hill", "sang a loud song",
         "the storm only wanted to sing too"},
        {"deep water", "the others jumped in the lake", "put one foot in and then the other",
         "the water could carry {him}"},
        {"the big dog", "it ran to the gate", "stood still and held out one hand",
         "the dog only wanted to play"},
        {"high places", "they came to the long ladder", "looked only at the next step",
         "the world looked beautiful from the top"},
        {"the new school", "the first bell rang", "said hello to the child in the next chair",
         "the other children were shy as well"}};
    const char *const *fear = fears[below(s, COUNT(fears))];
    set(s, "fear", fear[0]);
    set(s, "when", fear[1]);
    set(s, "trick", fear[2]);
    set(s, "truth", fear[3]);
    open_story(s, "[shy|timid|nervous|quiet]");
    say(s,
        "{hero} was not afraid of [spiders|mice|snakes] or [ghosts|wolves|bears], but {he} was "
        "very afraid of {fear}. ^{day}, {when}. {hero} [began to shake|hid under a blanket|could "
        "not move|ran behind {spot}].\n");
    say(s,
        "{friend} saw it. \"Are you afraid?\" {fhe} asked. {hero} nodded. \"I was afraid of {fear} "
        "once,\" said {friend}. \"{elder} taught me a trick. [Take a deep breath|Close your eyes "
        "and "
        "breathe|Think of something nice], and be brave for just one minute.\"\n");
    say(s, "So {hero} took a deep breath. ^{he} {trick}. [One minute went by|Nothing bad "
           "happened|^{his} "
           "heart went slower]. And then {he} saw that {truth}. {hero} [laughed|smiled|cheered]. "
           "\"I did "
           "it!\"\n");
    say(s, "In the evening, {hero} told {elder} everything. \"I am proud of you,\" said {elder}, "
           "and they "
           "ate {food} together. ");
    moral(s,
          "[being brave means to try even when you are afraid|fear gets smaller when you look at "
          "it|you can be brave for one minute at a time]");
}

static void plot_practice(struct story *s)
{
    static const char *const skills[][3] = {
        {"ride a bike", "fell over", "rode all the way around {spot}"},
        {"swim", "swallowed some water", "swam across the pool"},
        {"bake bread", "burned the bread", "took a perfect loaf out of the oven"},
        {"play the flute", "made a terrible squeak", "played a lovely song"},
        {"skip with a rope", "got tangled up", "skipped fifty times in a row"},
        {"write a letter", "broke the pencil", "wrote a whole page without a mistake"},
        {"whistle", "blew only air", "whistled like a blackbird"},
        {"build a tower of blocks", "knocked it down", "built a tower as tall as a door"}};
    const char *const *skill = skills[below(s, COUNT(skills))];
    set(s, "skill", skill[0]);
    set(s, "fails", skill[1]);
    set(s, "success", skill[2]);
    open_story(s, "[eager|stubborn|curious|lively]");
    say(s,
        "{hero} wanted to learn to {skill}, just like {friend}. ^{day}, {he} tried for the first "
        "time, "
        "but {he} {fails}. ^{he} tried a second time, and again {he} {fails}. \"I will never learn "
        "it!\" {he} [shouted|cried|said] and [kicked a stone|sat down on the ground|threw {his} "
        "{colour} "
        "hat away].\n");
    say(s, "{elder} [smiled|sat down beside {him}]. \"Do you know how often {friend} tried? "
           "[Ten|Twenty|"
           "Thirty] times! Try a little every day.\"\nSo {hero} practiced on Monday. ^{he} "
           "practiced on "
           "Tuesday and on Wednesday. On Thursday it was [raining|cold|windy], but {he} practiced "
           "anyway.\n");
    say(s, "On Friday, {friend} came to watch. {hero} took a deep breath, and {he} {success}! "
           "\"You did "
           "it!\" [cheered|shouted|cried] {friend}. {elder} made {food} for everyone. ");
    moral(s,
          "[practice makes you better|you should not give up after the second try|everyone starts "
          "with mistakes]");
}

static void plot_truth(struct story *s)
{
    static const char *const things[][3] = {
        {"vase", "glass", "glue"}, {"clock", "wood", "nails"}, {"window", "glass", "a new pane"},
        {"plate", "clay", "glue"}, {"chair", "wood", "nails"}, {"curtain", "cloth", "a needle"}};
    const char *const *thing = things[below(s, COUNT(things))];
    bool honest = maybe(s, 50);
    set(s, "thing", thing[0]);
    set(s, "thing_of", thing[1]);
    set(s, "mend", thing[2]);
    open_story(s, honest ? "[honest|good|truthful]" : "[sneaky|sly|foolish]");
    say(s,
        "^{day}, it was [raining|snowing|too cold to go out], so {hero} and {friend} played with "
        "the "
        "{colour} {toy} inside the house. [They ran faster and faster|They got wilder and "
        "wilder|{hero} threw it too far]. Crash! The {colour2} {thing} of {elder} [was broken|fell "
        "down and broke|had a big crack].\n\"Oh no,\" said {friend}. \"What will we do?\"\n");
    if (honest) {
        say(s,
            "\"We will tell the truth,\" said {hero}. They went to {elder}. \"I broke your "
            "{colour2} "
            "{thing}. It was my fault. I am sorry.\"\n{elder} was quiet for a moment. Then {ehe} "
            "[smiled|put an arm around {him}]. \"Thank you for telling me. Let us fix it together "
            "with {mend}.\" And so they did. ");
    } else {
        say(s, "\"We will say that the cat did it,\" said {hero}. When {elder} came home, {hero} "
               "pointed at "
               "the cat. {elder} put the poor cat outside in the [rain|cold]. The cat cried at the "
               "door. "
               "{hero} could not eat {his} {food}. ^{his} heart felt heavy like a stone.\n");
        say(s, "At last {he} said, \"It was not the cat. I broke the {colour2} {thing}, and I "
               "lied.\" {elder} "
               "let the cat in and dried it with a towel. \"A {thing} can be fixed with {mend},\" "
               "{ehe} said, "
               "\"but a lie is harder to fix.\" {hero} said sorry to the cat, too. ");
    }
    moral(
        s,
        "[it is best to tell the truth|telling the truth takes courage|the truth makes your heart "
        "light]");
}

static void plot_trade(struct story *s)
{
    open_story(s, "[restless|curious|funny|young]");
    say(s, "{hero} had # {colour} {toy} that {toy_does}. {friend}, {friend_is}, had # {colour2} "
           "{toy2} that "
           "{toy2_does}. ^{day}, they met {at_place}.\n\"I wish I had your {toy2},\" said {hero}. "
           "\"[My {toy} "
           "is boring|I am tired of my {toy}].\"\n\"Then let us trade,\" said {friend}. So {hero} "
           "got the "
           "{colour2} {toy2}, and {friend} got the {colour} {toy}.\n");
    if (maybe(s, 60)) {
        say(s, "At first {hero} was {glad}. But at night {he} [could not sleep|lay awake]. ^{he} "
               "missed the "
               "{toy}. It had been a gift from {elder}. The next morning, {he} ran to {friend}. "
               "\"I miss my "
               "{toy},\" {he} said. \"And I miss my {toy2}!\" said {friend}. They both laughed and "
               "traded "
               "back. ");
        moral(s, "[you should love what you have|some things cannot be traded|you only know what "
                 "you have "
                 "when it is gone]");
    } else {
        say(s,
            "{hero} took the {toy2} home and showed it to {elder}. \"Look, it {toy2_does}!\" And "
            "{friend} was just as {glad}, because the {toy} {toy_does}. The next day they met "
            "again near "
            "{spot} and played with both. ");
        moral(s, "[a fair trade makes both sides happy|two friends can have twice as much fun]");
    }
}

static void plot_picnic(struct story *s)
{
    static const char *const weathers[][3] = {
        {"dark clouds came, and it began to rain", "wet", "umbrella"},
        {"a cold wind began to blow", "cold", "warm blanket"},
        {"the sun became very hot", "hot", "straw hat"},
        {"thick fog came up from the river", "lost", "lantern"}};
    const char *const *weather = weathers[below(s, COUNT(weathers))];
    bool prepared = maybe(s, 50);
    set(s, "weather", weather[0]);
    set(s, "feel", weather[1]);
    set(s, "need", weather[2]);
    open_story(s, prepared ? "[sensible|careful|tidy]" : "[hasty|careless|jolly]");
    say(s,
        "^{day}, {hero} and {friend} planned a picnic {at_place}. They packed {food} and {food2}. "
        "\"Take # {need} with you,\" said {elder}. ");
    if (prepared)
        say(s, "\"Good idea,\" said {hero}, and {he} put the {need} in {his} {colour} bag.\n");
    else
        say(s, "\"We will not need it,\" said {hero}, and {he} left the {need} at home.\n");
    say(s, "They sat down near {spot} and opened the basket. They had just begun to eat the {food} "
           "when "
           "{weather}. ");
    if (prepared) {
        say(s, "\"Now we will be {feel}!\" cried {friend}. But {hero} opened the {colour} bag and "
               "took out the "
               "{need}. \"{elder} was right,\" {he} said. They used the {need} and finished the "
               "{food2}. "
               "It was the best picnic ever. ");
        moral(s, "[it is wise to be prepared|good advice weighs less than bad luck]");
    } else {
        say(s, "\"Now we are {feel}!\" cried {friend}. \"If only we had the {need}!\" They "
               "[ran|went] all the way "
               "home, and half of the {food2} fell on the road. {elder} gave them [hot|cool] "
               "[tea|milk|lemonade] and did not say a word. {elder} did not need to. ");
        moral(s, "[next time it is better to take the {need}|one should think before leaving the "
                 "house]");
    }
}

static void plot_gift(struct story *s)
{
    open_story(s, "[loving|thoughtful|gentle|warm-hearted]");
    say(s,
        "Tomorrow was the birthday of {elder}. {hero} had no money, so {he} decided to make # "
        "{colour} "
        "{toy} out of {toy_of}. ^{he} worked [all day|from morning until night|for many hours].\n");
    bool rain = maybe(s, 50);
    say(s,
        rain
            ? "But in the night it rained through the open window, and in the morning the {toy} "
              "was "
              "ruined. The {colour} paint had run away. "
            : "But in the night the [cat|puppy|baby] found the {toy}, and in the morning it was in "
              "pieces. ");
    say(s,
        "{hero} [sat down and cried|was {sad}]. \"Now I have nothing for {elder}!\"\n{friend} "
        "knocked at "
        "the door. \"We still have an hour,\" {fhe} said. \"I have [some string|a pot of {colour2} "
        "paint|a box of buttons]. We can [fix it|make it new].\" Together they worked quickly. ");
    say(s, rain ? "This time, they closed the window.\n"
                : "This time, they put it on a high shelf.\n");
    say(s, "When {elder} opened the present, {ehe} had tears in {ehis} eyes. \"# {toy}! Did you "
           "make it "
           "yourself?\"\n\"{friend} helped me,\" said {hero}. {elder} hugged them both and cut the "
           "{food}. ");
    moral(s,
          "[a gift made by hand is the best gift|with a friend, you can begin again|what counts is "
          "the thought]");
}

enum itera_status itera_story_append(uint64_t seed, bool held_out, uint64_t index,
                                     struct itera_story_text *text)
{
    static void (*const plots[])(struct story *) = {
        plot_lost,     plot_share, plot_warning, plot_rescue, plot_garden, plot_fear,
        plot_practice, plot_truth, plot_trade,   plot_picnic, plot_gift};
    /* The low bit of the stream is the split, the rest the story. */
    struct story s = {.rng = {seed, index << 1 | held_out, 0}, .out = text};
    draw_cast(&s);
    draw_things(&s);
    set(&s, "himself", strcmp(get(&s, "he", 2), "she") == 0 ? "herself" : "himself");
    plots[below(&s, COUNT(plots))](&s);
    return s.failed ? itera_fail(ITERA_ERR_MEMORY, "builtin:stories: no memory") : ITERA_OK;
}
