#include "client/held.h"

void shmi_queue_append(struct shmi_held *held, struct shmi_queue *queue, uint32_t page, enum shmi_held_queue which)
{
	struct shmi_held *node = &held[page];

	node->next = 0;
	node->prev = queue->tail;
	node->queue = (uint8_t)which;
	if (queue->tail)
		held[queue->tail].next = page;
	else
		queue->head = page;
	queue->tail = page;
	queue->count++;
}

void shmi_queue_remove(struct shmi_held *held, struct shmi_queue *queue, uint32_t page)
{
	struct shmi_held *node = &held[page];

	if (node->prev)
		held[node->prev].next = node->next;
	else
		queue->head = node->next;
	if (node->next)
		held[node->next].prev = node->prev;
	else
		queue->tail = node->prev;
	node->next = node->prev = 0;
	node->queue = SHMI_HELD_NONE;
	queue->count--;
}
